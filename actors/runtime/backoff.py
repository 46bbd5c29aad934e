"""How long a child waits before its next restart. Pure: numbers in, seconds out.

Source: Akka/Pekko `RestartSupervisor.calculateDelay`, with two changes: the first restart has a delay of
its own (`first`, usually none), and the cap holds after jitter.
"""

from dataclasses import dataclass

# 2**30 times any `min` worth configuring is beyond any `max`: a clamp against absurd exponents.
_MAX_EXPONENT = 30


@dataclass(frozen=True, slots=True)
class Backoff:
    """The k-th consecutive restart waits `first` for k = 1, then `min(max, min·2^(k-2)·(1 + U(0,1)·jitter))`.

    Attributes: `first`, `min`, `max` in seconds; `jitter` a fraction; `reset_after` handled messages make
    the child healthy, as does a ready time of `(min + max) / 2` seconds.
    """

    first: float = 0.0
    min: float = 0.5
    max: float = 30.0
    jitter: float = 0.2
    reset_after: int = 32

    def __post_init__(self) -> None:
        if self.first < 0 or self.min < 0 or self.jitter < 0:
            raise ValueError(f"backoff: first, min and jitter must not be negative, got {self!r}")
        if self.max < self.min:
            raise ValueError(f"backoff: max ({self.max}) must not be below min ({self.min})")
        if self.reset_after < 1:
            raise ValueError(f"backoff: reset_after must be at least 1, got {self.reset_after}")

    def delay(self, consecutive: int, u: float) -> float:
        """Seconds before the *consecutive*-th restart in a row (from 1); *u* is uniform in [0, 1)."""
        if consecutive <= 1:
            return self.first
        doublings = float(2 ** min(consecutive - 2, _MAX_EXPONENT))
        return min(self.max, self.min * doublings * (1 + u * self.jitter))

    def consecutive(self, previous: int, ready_for: float | None, handled: int) -> int:
        """The number of this failure in its row: 1 after a healthy incarnation, else one more than *previous*.

        *ready_for*: seconds the failed incarnation was ready, None if it never was; *handled*: messages it handled.
        """
        healthy = ready_for is not None and (ready_for >= (self.min + self.max) / 2 or handled >= self.reset_after)
        return 1 if healthy else previous + 1
