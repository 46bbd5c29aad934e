"""What a limit does while the shared counters are away: its `fail`. Pure: the caller brings the time.

`local` counts here, at the limit ÷ the instances last known, so that all of them together admit no more than it says.
"""

from collections.abc import Sequence
from dataclasses import replace

from actors.rate_limiter.store import Buckets
from backends.ports import limits as ports
from backends.ports.limits import Limit, LimitsUnavailable, Verdict


class Fallback:
    """*buckets*: the bounded ones of this process, whose limits are this object's from now on."""

    def __init__(self, buckets: Buckets, limits: Sequence[Limit]) -> None:
        self._buckets = buckets
        self._limits: dict[str, Limit] = {}
        self._instances = 1
        self.reload(limits)

    def reload(self, limits: Sequence[Limit]) -> None:
        """ValueError changes nothing."""
        self._buckets.reload([share(limit, self._instances) for limit in limits])
        self._limits = {limit.name: limit for limit in limits}

    def check(self, buckets: ports.Buckets, now_us: int, instances: int) -> Verdict | LimitsUnavailable:
        """As `Limiter.check`, for one check. *now_us*: monotonic."""
        if instances != self._instances:
            self._instances = instances
            self._buckets.reload([share(limit, instances) for limit in self._limits.values()])
        counted = []
        for bucket in buckets:
            limit = self._limits.get(bucket[0])
            if limit is None or limit.fail == "open":
                continue
            if limit.fail == "closed":
                return LimitsUnavailable(limit.name)
            counted.append(bucket)
        verdict = self._buckets.check(counted, now_us)
        if instances == 1:
            return verdict
        # The policy that callers are told is the limit's own.
        states = tuple(replace(state, window_s=self._limits[state.name].window_s) for state in verdict.states)
        return replace(verdict, states=states)


def share(limit: Limit, instances: int) -> Limit:
    """One of *instances*' part of *limit*. The window grows, as the quota may not divide; one at once it always is."""
    return replace(limit, window_s=limit.window_s * instances, burst=max(1, limit.burst // instances))
