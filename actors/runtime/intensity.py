"""Restart intensity: OTP's sliding window over failures. Pure: times in, a verdict out.

Source: Erlang/OTP `supervisor.erl`, `add_restart/1`.
"""

from collections import deque


class Intensity:
    """Allow at most *limit* failures in any *period* seconds; *limit* None allows any number."""

    def __init__(self, limit: int | None, period: float) -> None:
        if limit is not None and limit < 0:
            raise ValueError(f"intensity must not be negative, got {limit}")
        if period <= 0:
            raise ValueError(f"period must be above 0 seconds, got {period}")
        self._limit = limit
        self._period = period
        self._failures: deque[float] = deque()

    def record(self, now: float) -> bool:
        """Count a failure at *now* (seconds, not decreasing); False when it is one too many."""
        if self._limit is None:
            return True
        while self._failures and self._failures[0] < now - self._period:
            self._failures.popleft()
        self._failures.append(now)
        return len(self._failures) <= self._limit

    def clear(self) -> None:
        """Forget all failures: a restarted supervisor starts with a clean record."""
        self._failures.clear()
