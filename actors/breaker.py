"""Whether something that failed is asked again: ejection after failures, one probe at a time to come back. Pure.

Sources: Nygard, "Release It!" (circuit breaker: closed, open, half-open); Envoy's outlier detection (ejection that
grows with its repetition).
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """`failures` in a row eject for `base` seconds, twice as long each further time, up to `cap`."""

    failures: int = 5
    base: float = 1.0
    cap: float = 30.0


@dataclass(slots=True)
class Health:
    """What is known of one upstream, or of one engine. Times are seconds of one monotonic clock.

    Ejected, it gets nothing until the time is over; then one request, the probe, whose outcome lets it back or
    ejects it for longer.
    """

    policy: HealthPolicy = field(default_factory=HealthPolicy)
    failures: int = 0
    ejections: int = 0
    """In a row: how often it failed its way back."""
    ejected_until: float | None = None
    probing: bool = False

    def available(self, now: float) -> bool:
        return self.ejected_until is None or (now >= self.ejected_until and not self.probing)

    def retry_after(self, now: float) -> float:
        """Seconds until it may be asked again."""
        return 0.0 if self.ejected_until is None else max(0.0, self.ejected_until - now)

    def begin(self) -> bool:
        """A request goes to it, which must be available. Returns whether that one is the probe."""
        self.probing = self.ejected_until is not None
        return self.probing

    def abandon(self) -> None:
        """The probe ended and says nothing: its client left, say. The next request is the probe."""
        self.probing = False

    def succeeded(self) -> bool:
        """It answered, whatever the status. Returns whether that lets it back."""
        back = self.ejected_until is not None
        self.failures = self.ejections = 0
        self.ejected_until, self.probing = None, False
        return back

    def failed(self, now: float, *, probe: bool) -> bool:
        """It did not answer, or not in HTTP. Returns whether that ejects it (again).

        Once it is ejected, what was sent to it before says nothing new: only the *probe* counts.
        """
        self.failures += 1
        if self.ejected_until is not None and not probe:
            return False
        if not probe and self.failures < self.policy.failures:
            return False
        self.eject(now)
        return True

    def eject(self, now: float) -> None:
        """Ask it no more for a while, whatever it did before: it said so itself, or its probe failed."""
        wait = min(self.policy.cap, self.policy.base * 2.0 ** min(self.ejections, 32))
        self.ejections += 1
        self.ejected_until, self.probing = now + wait, False
