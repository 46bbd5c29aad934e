"""Rate limits: what is configured, what a check says, and who counts. Pure shapes and one Protocol.

`gcra.py` beside it defines when a request conforms; every limiter decides by it, to the microsecond.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from backends.ports.gcra import Gcra

Buckets = tuple[tuple[str, str], ...]
"""What one request is charged to: (limit's name, caller's key), each at most once."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A configured limit. `quota` requests per `window_s` seconds sustained, exactly `burst` at once.

    `fail`: what happens while the shared counters are away: `local` (a share of it is counted here), `open` (not
    limited) or `closed` (refused).
    """

    name: str
    key: str
    """`token`, `address` or `subject`."""
    quota: int
    window_s: int
    burst: int
    fail: str = "local"

    @property
    def gcra(self) -> Gcra:
        """Raises ValueError for numbers that make no limit."""
        return Gcra.of(self.quota, self.window_s, self.burst)


@dataclass(frozen=True, slots=True)
class LimitState:
    """One limit after the check. `remaining`: how many may come at once; `reset_s`: until the bucket is
    full again, rounded up; `quota` per `window_s`."""

    name: str
    quota: int
    window_s: int
    remaining: int
    reset_s: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """`retry_after_s` 0: admitted. Else whole seconds until every violated limit would admit again."""

    retry_after_s: int
    violated: tuple[str, ...]
    states: tuple[LimitState, ...]


class LimitsUnavailable(Exception):
    """A limit with `fail = "closed"` cannot be counted now: its requests are refused, and may come again."""


class Limiter(Protocol):
    """Counts for every instance that shares its store."""

    async def check(self, checks: Sequence[Buckets]) -> list[Verdict]:
        """One verdict a check, in their order, each as if it came after those before it; one round trip for all.

        All buckets of a check are charged, or none. A limit that is not configured is passed over. Raises
        `SharedStoreAway` within the store's budget; then, and when cancelled, some may have been charged.
        """
        ...

    def reload(self, limits: Sequence[Limit]) -> None:
        """Replace the limits. Those that keep name and numbers keep their buckets. ValueError changes nothing."""
        ...
