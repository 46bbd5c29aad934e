"""The buckets of one process. Pure: the caller brings the time.

Made by the composition root and given to each incarnation of the actor, so a crash gives nobody a fresh quota.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from backends.ports.limits import Limit, LimitState, Verdict

# A new key looks at this many of the oldest: the store shrinks twice as fast as it grows, at a constant price.
_PURGED_PER_NEW_KEY = 2


class _LimitBuckets:
    """One limit with its buckets: TAT by caller, the least recently charged first. A full bucket is as good as none."""

    __slots__ = ("gcra", "limit", "tats")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.gcra = limit.gcra
        self.tats: OrderedDict[str, int] = OrderedDict()

    def same_numbers(self, limit: Limit) -> bool:
        mine = self.limit
        return (mine.quota, mine.window_s, mine.burst) == (limit.quota, limit.window_s, limit.burst)

    def state(self, key: str, now: int) -> LimitState:
        tat = self.tats.get(key, 0)
        gcra = self.gcra
        return LimitState(
            self.limit.name, self.limit.quota, self.limit.window_s, gcra.remaining(tat, now), gcra.seconds(tat - now)
        )


class Buckets:
    """Every limit's buckets, at most *max_keys* a limit.

    Beyond that the least recently charged one is forgotten (`evicted` counts them): its caller gets a full
    bucket back, which is the lesser evil beside refusing strangers or growing without end. As a bucket is full
    again `window·burst/quota` after its last charge, it takes max_keys *other* callers within that time.
    """

    def __init__(self, limits: Sequence[Limit], max_keys: int = 100_000) -> None:
        self._max_keys = max_keys
        self._limits: dict[str, _LimitBuckets] = {}
        self.evicted = 0
        self.reload(limits)

    def reload(self, limits: Sequence[Limit]) -> None:
        """Replace the limits. Those that keep name and numbers keep their buckets. ValueError changes nothing."""
        replaced: dict[str, _LimitBuckets] = {}
        for limit in limits:
            if limit.name in replaced:
                raise ValueError(f"two limits are called {limit.name!r}")
            known = self._limits.get(limit.name)
            fresh = _LimitBuckets(limit)
            if known is not None and known.same_numbers(limit):
                fresh.tats = known.tats
            replaced[limit.name] = fresh
        self._limits = replaced

    def check(self, buckets: Iterable[tuple[str, str]], now_us: int) -> Verdict:
        """Check all of *buckets* (limit's name, caller's key; each at most once), then charge all, or none.

        *now_us*: monotonic microseconds. A limit that is no longer configured is passed over.
        """
        named = [(known, key) for name, key in buckets if (known := self._limits.get(name)) is not None]
        longest = 0
        violated = []
        for limit, key in named:
            gcra = limit.gcra
            tat = limit.tats.get(key)
            if tat is not None and (wait := gcra.wait(tat, gcra.now(now_us))) > 0:
                violated.append(limit.limit.name)
                longest = max(longest, gcra.seconds(wait))
        if not violated:
            for limit, key in named:
                self._charge(limit, key, limit.gcra.now(now_us))
        states = tuple(limit.state(key, limit.gcra.now(now_us)) for limit, key in named)
        return Verdict(longest, tuple(violated), states)

    def size(self) -> dict[str, int]:
        """How many buckets are kept, by limit."""
        return {name: len(limit.tats) for name, limit in self._limits.items()}

    def _charge(self, limit: _LimitBuckets, key: str, now: int) -> None:
        tats = limit.tats
        tat = tats.get(key)
        if tat is None:
            self._make_room(tats, now)
            tats[key] = limit.gcra.charge(0, now)
        else:
            tats[key] = limit.gcra.charge(tat, now)
            tats.move_to_end(key)

    def _make_room(self, tats: OrderedDict[str, int], now: int) -> None:
        for _ in range(_PURGED_PER_NEW_KEY):
            oldest = next(iter(tats), None)
            if oldest is None or tats[oldest] > now:
                break
            del tats[oldest]
        while len(tats) >= self._max_keys:
            tats.popitem(last=False)
            self.evicted += 1
