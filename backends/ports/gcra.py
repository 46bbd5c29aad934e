"""Decide whether a request conforms to its quota. Pure: integers in, integers out.

The generic cell rate algorithm in its virtual-scheduling form (ITU-T I.371, annex A): a bucket is one
number, the theoretical arrival time (TAT) at which it will be full again.

Time is counted in *ticks* of 1/quota microseconds. The emission interval T = window/quota is then a whole
number (window_us ticks) for every quota, where in whole microseconds 7 per second would admit one request
too many every 143 s, and in float seconds a burst of 7 would now and then be one of 6.
"""

from dataclasses import dataclass

US = 1_000_000
"""Microseconds in a second."""


@dataclass(frozen=True, slots=True)
class Gcra:
    """One limit's constants. `interval` (T) and `tolerance` (τ = T·burst) are in ticks."""

    ticks_per_us: int
    interval: int
    tolerance: int

    @classmethod
    def of(cls, quota: int, window_s: int, burst: int) -> "Gcra":
        """*quota* requests per *window_s* seconds sustained, exactly *burst* at once from a full bucket.

        Raises ValueError for numbers that make no limit, and for more than one request a microsecond.
        """
        window_us = window_s * US
        if quota < 1 or window_s < 1 or burst < 1:
            raise ValueError(f"quota, window and burst must be at least 1, got {quota} per {window_s} s, burst {burst}")
        if quota > window_us:
            raise ValueError(f"{quota} per {window_s} s is more than one a microsecond, the clock's resolution")
        return cls(quota, window_us, window_us * burst)

    def now(self, now_us: int) -> int:
        return now_us * self.ticks_per_us

    def wait(self, tat: int, now: int) -> int:
        """Ticks until one request conforms; 0 or less: it does now."""
        return tat - now - self.tolerance + self.interval

    def charge(self, tat: int, now: int) -> int:
        """The TAT after one request that conforms at *now*."""
        return (tat if tat > now else now) + self.interval

    def remaining(self, tat: int, now: int) -> int:
        """How many more requests would conform at once at *now*."""
        left = self.tolerance - (tat - now) if tat > now else self.tolerance
        return left // self.interval if left > 0 else 0

    def us(self, ticks: int) -> int:
        """Ticks as microseconds, rounded up; 0 for negative ticks."""
        return -(-ticks // self.ticks_per_us) if ticks > 0 else 0

    def seconds(self, ticks: int) -> int:
        """Ticks as whole seconds, rounded up; 0 for negative ticks."""
        return -(-ticks // (self.ticks_per_us * US)) if ticks > 0 else 0
