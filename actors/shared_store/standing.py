"""Whether the shared store may be asked, and whether what it keeps may be believed. Pure: the caller brings the time.

One for all who use the store: what hangs for one hangs for all. Made by the composition root, so that it outlives
actors. Times are seconds of one monotonic clock.
"""

from dataclasses import dataclass, field

from actors.breaker import Health, HealthPolicy
from backends.ports.shared import Beat, SharedStoreAway

# The waits between probes are short, as one costs no caller anything.
POLICY = HealthPolicy(failures=3, base=0.25, cap=1.0)
WITNESS_WAIT_S = 3.0
"""Two heartbeats and some: an instance that is alive has been heard of by then."""


@dataclass(slots=True)
class Standing:
    """Begins as away, until the first heartbeat was answered.

    `usable`: ask it; three failures in a row (whose ever) end that, an answered heartbeat begins it again.
    `trusted`: what it keeps has missed no eviction. That ends when another run of the store answers, or an outage
    outlives a probe, and begins again with a new epoch. To a store that others have been using all along an
    instance that starts need not bring one: those have evicted what it cannot have heard of.
    """

    health: Health = field(default_factory=lambda: Health(POLICY, ejected_until=0.0))
    trusted: bool = False
    instances: int = 1
    """As last known."""
    reason: str = "not reached yet"
    _since: float | None = None
    """The first heartbeat of an instance that has not joined yet."""
    _joined: bool = False

    @property
    def usable(self) -> bool:
        return self.health.ejected_until is None

    @property
    def readable(self) -> bool:
        """Whether the cache in it may be read and filled."""
        return self.trusted and self.health.ejected_until is None

    def wait(self, now: float, every: float) -> float:
        """Seconds until the next heartbeat is due, *every* so many while all is well."""
        return every if self.usable else self.health.retry_after(now)

    def answered(self) -> None:
        """A batch was. One that was sent before the store was given up changes nothing."""
        if self.usable:
            self.health.failures = 0

    def failed(self, error: SharedStoreAway, now: float) -> bool:
        """A batch, or a heartbeat while the store counted as usable. Returns whether that gives the store up."""
        if error.lost:
            self.trusted = False
            gave_up = self.usable
            if gave_up:
                self.health.eject(now)
        else:
            gave_up = self.health.failed(now, probe=False)
        if gave_up:
            self.reason = str(error)
        return gave_up

    def probe_failed(self, error: SharedStoreAway, now: float) -> None:
        """A heartbeat while the store was given up."""
        self.trusted = False
        self.reason = str(error)
        self.health.failed(now, probe=True)

    def needs_epoch(self, beat: Beat, now: float) -> bool:
        """After an answered heartbeat: whether a new epoch must come before the cache is believed."""
        if self._since is None:
            self._since = now
        if self.trusted:
            return False
        if self._joined or beat.instances <= 1:
            return True
        return not beat.witnesses and now - self._since >= WITNESS_WAIT_S

    def beaten(self, beat: Beat, *, renewed: bool) -> bool:
        """An answered heartbeat, and (*renewed*) a new epoch. Returns whether that lets the store back."""
        self.instances = max(1, beat.instances)
        if renewed or (not self._joined and beat.witnesses):
            self.trusted = self._joined = True
        return self.health.succeeded()
