"""Whether a request that failed is sent again. Pure.

Sources: RFC 9110 §9.2.2 (idempotent methods); Finagle's retry budget: retries are a share of the requests, so that
an upstream in trouble is not given several times its load.
"""

IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))


def may_repeat(method: str, *, sent: bool, consumed: bool) -> bool:
    """Whether sending it again can do no harm, and can be done.

    Args:
        sent: some of it may have reached the upstream, which may have acted on it.
        consumed: a part of its body is gone: it was streamed through.
    """
    return not consumed and (not sent or method in IDEMPOTENT)


class RetryBudget:
    """A token bucket that requests fill: *ratio* of a retry each, and *per_second* besides, saved up for *window* s."""

    __slots__ = ("_last", "_per_second", "_ratio", "_saved", "_tokens")

    def __init__(self, ratio: float = 0.2, per_second: float = 3.0, window: float = 10.0) -> None:
        self._ratio = ratio
        self._per_second = per_second
        self._saved = per_second * window
        self._tokens = self._saved
        self._last: float | None = None

    def count(self) -> None:
        """One more request. A burst of them earns no more than a hundred retries above the minimum."""
        self._tokens = min(self._tokens + self._ratio, self._saved + 100.0)

    def take(self, now: float) -> bool:
        """Whether one retry is affordable at *now* (seconds, monotonic); it is paid for then."""
        if self._last is not None and self._tokens < self._saved:
            self._tokens = min(self._saved, self._tokens + (now - self._last) * self._per_second)
        self._last = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
