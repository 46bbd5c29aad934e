"""What a limiter promises, in process and in Redis alike, against the definition in exact integers.

In Redis the clock is the server's. The script tells the instant it decided at, so the definition is asked about that
very instant: no interval, and no way to fake the time in what runs in production.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.rate_limiter.store import Buckets as LocalBuckets
from backends.asyncio_bridge import asyncio_loop
from backends.ports.limits import Buckets, Limit, Limiter, Verdict
from backends.redis.engine import RedisEngine
from backends.redis.limiter import RedisLimiter
from backends.redis.link import Link
from tests.engines.redis import RedisServer

US = 1_000_000
_prefixes = count()


class Local:
    """The buckets of one process, as a `Limiter`."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self.buckets = LocalBuckets(limits)
        self.now_us = 0

    async def check(self, checks: Sequence[Buckets]) -> list[Verdict]:
        self.now_us = round(trio.current_time() * US)
        return [self.buckets.check(check, self.now_us) for check in checks]

    def reload(self, limits: Sequence[Limit]) -> None:
        self.buckets.reload(limits)


class Spied(RedisLimiter):
    """Remembers the instant that the script decided at."""

    def __init__(self, link: Link, limits: Sequence[Limit]) -> None:
        super().__init__(link, limits)
        self.now_us = 0
        decode = self._decoder.decode

        class Decoder:
            @staticmethod
            def decode(raw: bytes) -> tuple[int, list[int]]:
                decoded = decode(raw)
                self.now_us = decoded[0]
                return decoded

        self._decoder = Decoder()  # type: ignore[assignment]


Open = Callable[[Sequence[Limit]], AbstractAsyncContextManager[Limiter]]


@pytest.fixture(params=["embedded", pytest.param("redis", marks=pytest.mark.engines)])
def opened(request: pytest.FixtureRequest) -> Open:
    if request.param == "embedded":

        @asynccontextmanager
        async def local(limits: Sequence[Limit]) -> AsyncIterator[Limiter]:
            yield Local(limits)

        return local
    server: RedisServer = request.getfixturevalue("redis_server")

    @asynccontextmanager
    async def shared(limits: Sequence[Limit]) -> AsyncIterator[Limiter]:
        # Nobody is in a hurry here: a machine that tests run on may be slow.
        engine = RedisEngine(server.url, f"limits-{next(_prefixes)}", "", "test", limits, budget=5.0)
        spied = Spied(engine._link, limits)
        async with asyncio_loop(), engine.opened():
            yield spied

    return shared


def limit(name: str = "caller", quota: int = 600, window_s: int = 60, burst: int = 60) -> Limit:
    return Limit(name, "token", quota, window_s, burst)


def only(caller: str, name: str = "caller") -> Buckets:
    return ((name, caller),)


@dataclass
class Definition:
    """GCRA by its definition (ITU-T I.371, annex A), in fractions of a microsecond and in no hurry."""

    limits: dict[str, Limit]
    tats: dict[tuple[str, str], Fraction] = field(default_factory=dict)

    def check(self, buckets: Buckets, now: int) -> tuple[bool, list[tuple[str, int, int]], list[str]]:
        def constants(name: str) -> tuple[Fraction, Fraction]:
            limit = self.limits[name]
            interval = Fraction(limit.window_s * US, limit.quota)
            return interval, interval * limit.burst

        violated = []
        for bucket in buckets:
            interval, tolerance = constants(bucket[0])
            if self.tats.get(bucket, Fraction(0)) + interval > now + tolerance:
                violated.append(bucket[0])
        states = []
        for bucket in buckets:
            interval, tolerance = constants(bucket[0])
            tat = self.tats.get(bucket, Fraction(0))
            if not violated:
                tat = self.tats[bucket] = max(tat, Fraction(now)) + interval
            ahead = max(Fraction(0), tat - now)
            states.append((bucket[0], int((tolerance - ahead) // interval), -int(-ahead // US)))
        return not violated, states, violated


limits = st.builds(
    Limit,
    name=st.sampled_from(["a", "b", "c"]),
    key=st.just("token"),
    quota=st.one_of(st.integers(1, 50), st.integers(1, 1_000_000)),
    window_s=st.one_of(st.just(1), st.integers(1, 100_000)),
    burst=st.one_of(st.integers(1, 5), st.integers(1, 10_000)),
)
plans = st.lists(limits, min_size=1, max_size=3, unique_by=lambda limit: limit.name)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), plan=plans)
async def test_it_decides_as_the_definition_does(opened: Open, data: st.DataObject, plan: list[Limit]) -> None:
    definition = Definition({limit.name: limit for limit in plan})
    bucket = st.tuples(st.sampled_from([limit.name for limit in plan]), st.sampled_from(["x", "y"]))
    check = st.lists(bucket, min_size=0, max_size=3, unique_by=lambda bucket: bucket[0]).map(tuple)
    async with opened(plan) as limiter:
        for _ in range(data.draw(st.integers(1, 6), "batches")):
            batch = data.draw(st.lists(check, min_size=1, max_size=8), "batch")
            verdicts = await limiter.check(batch)
            for buckets, verdict in zip(batch, verdicts, strict=True):
                if not buckets:
                    assert verdict == Verdict(0, (), ())
                    continue
                admitted, states, violated = definition.check(buckets, limiter.now_us)  # type: ignore[attr-defined]
                assert (verdict.retry_after_s == 0, list(verdict.violated)) == (admitted, violated)
                assert [(s.name, s.remaining, s.reset_s) for s in verdict.states] == states
            await trio.sleep(data.draw(st.sampled_from([0, 0, 0.001, 0.004]), "pause"))


async def test_exactly_a_burst_is_admitted_at_once_and_the_rest_told_when(opened: Open) -> None:
    async with opened([limit(quota=60, window_s=60, burst=3)]) as limiter:
        verdicts = await limiter.check([only("a")] * 5)
    assert [verdict.retry_after_s for verdict in verdicts] == [0, 0, 0, 1, 1]
    assert [verdict.states[0].remaining for verdict in verdicts] == [2, 1, 0, 0, 0]
    assert verdicts[0].states[0].reset_s == 1
    assert verdicts[-1].violated == ("caller",)


async def test_all_buckets_are_charged_or_none(opened: Open) -> None:
    async with opened([limit("caller", burst=5), limit("address", quota=60, burst=1)]) as limiter:
        both: Buckets = (("caller", "t"), ("address", "ip"))
        first, refused, alone = await limiter.check([both, both, only("t")])
    assert first.retry_after_s == 0
    assert refused.violated == ("address",)
    assert [state.remaining for state in refused.states] == [4, 0]
    assert alone.states[0].remaining == 3


async def test_of_two_violated_limits_the_longer_wait_counts(opened: Open) -> None:
    async with opened([limit("a", 1, 10, 1), limit("b", 1, 30, 1)]) as limiter:
        both: Buckets = (("a", "x"), ("b", "x"))
        _, refused = await limiter.check([both, both])
    assert refused.violated == ("a", "b")
    assert refused.retry_after_s == 30


async def test_callers_and_limits_do_not_share_buckets(opened: Open) -> None:
    async with opened([limit("a", burst=1), limit("b", burst=1)]) as limiter:
        verdicts = await limiter.check([only("x", "a"), only("y", "a"), only("x", "b"), only("x", "a")])
    assert [verdict.retry_after_s for verdict in verdicts] == [0, 0, 0, 1]


async def test_a_limit_that_is_not_configured_is_passed_over(opened: Open) -> None:
    async with opened([limit()]) as limiter:
        both, nothing = await limiter.check([(("gone", "x"), ("caller", "x")), (("gone", "x"),)])
        assert await limiter.check([]) == []
    assert [state.name for state in both.states] == ["caller"]
    assert nothing == Verdict(0, (), ())


async def test_a_reload_keeps_the_buckets_of_limits_with_the_same_numbers(opened: Open) -> None:
    async with opened([limit("same", burst=1), limit("other", burst=1)]) as limiter:
        both: Buckets = (("same", "x"), ("other", "x"))
        await limiter.check([both])
        limiter.reload([limit("same", burst=1), limit("other", burst=2)])
        (verdict,) = await limiter.check([both])
        assert verdict.violated == ("same",)
        with pytest.raises(ValueError, match="same"):
            limiter.reload([limit("same"), limit("same")])
        assert (await limiter.check([only("x", "other")]))[0].states[0].remaining == 1


async def test_a_refused_caller_is_admitted_after_its_wait(opened: Open) -> None:
    async with opened([limit(quota=50, window_s=1, burst=1)]) as limiter:
        assert [v.retry_after_s for v in await limiter.check([only("a")] * 2)] == [0, 1]
        await trio.sleep(0.021)
        assert (await limiter.check([only("a")]))[0].retry_after_s == 0


@pytest.mark.parametrize("caller", ["", "ä:ö", "a\0b", "x" * 5000, "{a}"])
async def test_any_caller_is_a_caller(opened: Open, caller: str) -> None:
    async with opened([limit(burst=1)]) as limiter:
        verdicts = await limiter.check([only(caller), only(caller)])
    assert [verdict.retry_after_s for verdict in verdicts] == [0, 1]
