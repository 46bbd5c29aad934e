"""Rate limits counted in Redis: one script a batch, on the server's clock.

The script keeps theoretical arrival times and tells them with the instant it decided at; what a verdict says about
them is computed here, by the same arithmetic as in process.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from backends.ports.gcra import Gcra
from backends.ports.limits import Buckets, Limit, LimitState, Verdict
from backends.redis.link import Link, Script

# Beyond it Lua's doubles are not exact. A bucket that takes 200 years to fill is nobody's limit.
MOST_US = 200 * 365 * 86_400 * 1_000_000


@dataclass(frozen=True, slots=True)
class _Known:
    limit: Limit
    gcra: Gcra
    prefix: str
    """Of its buckets' keys; with other numbers it has other buckets."""
    packed: tuple[int, ...]


class RedisLimiter:
    """`backends.ports.limits.Limiter`. Raises ValueError for limits that cannot be counted here."""

    def __init__(self, link: Link, limits: Sequence[Limit]) -> None:
        self._link = link
        self._script = Script("limit")
        self._decoder = msgspec.msgpack.Decoder(tuple[int, list[int]])
        self._limits: dict[str, _Known] = {}
        self.reload(limits)

    def reload(self, limits: Sequence[Limit]) -> None:
        replaced: dict[str, _Known] = {}
        for limit in limits:
            if limit.name in replaced:
                raise ValueError(f"two limits are called {limit.name!r}")
            replaced[limit.name] = _known(limit)
        self._limits = replaced

    async def check(self, checks: Sequence[Buckets]) -> list[Verdict]:
        limits = list(self._limits.values())
        index = {known.limit.name: at for at, known in enumerate(limits, 1)}
        keys: dict[tuple[str, str], int] = {}
        limit_of: list[int] = []
        named: list[list[tuple[_Known, int]]] = []
        for buckets in checks:
            mine = []
            for bucket in buckets:
                known = self._limits.get(bucket[0])
                if known is None:
                    continue
                at = keys.get(bucket)
                if at is None:
                    at = keys[bucket] = len(keys) + 1
                    limit_of.append(index[bucket[0]])
                mine.append((known, at))
            named.append(mine)
        if not keys:
            return [Verdict(0, (), ()) for _ in checks]
        request = msgspec.msgpack.encode(
            ([known.packed for known in limits], limit_of, [[at for _, at in mine] for mine in named])
        )
        names = [self._link.key(self._limits[name].prefix, caller) for name, caller in keys]
        now_us, numbers = self._decoder.decode(await self._link.run(self._script, names, request))
        verdicts, at = [], 0
        for mine in named:
            end = at + 1 + 2 * len(mine)
            verdicts.append(_verdict([known for known, _ in mine], now_us, numbers[at:end]))
            at = end
        return verdicts


def _known(limit: Limit) -> _Known:
    gcra = limit.gcra
    quota = gcra.ticks_per_us
    interval, tolerance = divmod(gcra.interval, quota), divmod(gcra.tolerance, quota)
    if tolerance[0] > MOST_US:
        raise ValueError(f"limit {limit.name!r}: burst and window are more than Redis can count: 200 years to refill")
    numbers = f"{limit.quota}/{limit.window_s}/{limit.burst}"
    return _Known(limit, gcra, f"limit:{limit.name}:{numbers}", (quota, *interval, *tolerance))


def _verdict(named: list[_Known], now_us: int, numbers: list[int]) -> Verdict:
    """*numbers*: 1 or 0 for admitted or not, then microseconds and ticks of each TAT."""
    longest = 0
    violated: list[str] = []
    states: list[LimitState] = []
    for at, known in enumerate(named):
        gcra, limit = known.gcra, known.limit
        now, tat = gcra.now(now_us), gcra.now(numbers[1 + 2 * at]) + numbers[2 + 2 * at]
        if not numbers[0] and (wait := gcra.wait(tat, now)) > 0:
            violated.append(limit.name)
            longest = max(longest, gcra.seconds(wait))
        left, reset = gcra.remaining(tat, now), gcra.seconds(tat - now)
        states.append(LimitState(limit.name, limit.quota, limit.window_s, left, reset))
    return Verdict(longest, tuple(violated), tuple(states))
