"""The rate limiter on counters that instances share, and without them."""

from collections.abc import Sequence
from functools import partial

import pytest
import trio
from actor_helpers import child, counts, gather, tree
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from actors.metrics import Metrics
from actors.rate_limiter.actor import SharedCounting, SharedRateLimiter
from actors.rate_limiter.fallback import Fallback, share
from actors.rate_limiter.messages import Check, Limit, Reload
from actors.rate_limiter.store import Buckets
from actors.runtime import Child, Reject
from actors.shared_store.standing import Standing
from backends.ports import limits as ports
from backends.ports.limits import LimitsUnavailable, Verdict
from backends.ports.shared import Beat
from tests.backends.shared_fakes import MemoryCache, hangs

US = 1_000_000
LIMIT = Limit("caller", "token", 60, 60, 4)
CHECK = Check((("caller", "a"),))


class MemoryLimiter:
    """`Limiter` in memory; `batches` tells how large each was, `store.fault` comes before."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self.buckets = Buckets(limits)
        self.batches: list[int] = []
        self.store = MemoryCache()

    async def check(self, checks: Sequence[ports.Buckets]) -> list[Verdict]:
        self.batches.append(len(checks))
        await self.store.read([])
        return [self.buckets.check(check, round(trio.current_time() * US)) for check in checks]

    def reload(self, limits: Sequence[Limit]) -> None:
        self.buckets.reload(limits)


class Setup:
    def __init__(self, *limits: Limit, instances: int = 1) -> None:
        limits = limits or (LIMIT,)
        self.limiter, self.standing, self.metrics = MemoryLimiter(limits), Standing(), Metrics()
        self.standing.beaten(Beat(instances, 0), renewed=True)
        buckets = Buckets(limits)
        self.shared = SharedCounting(self.limiter, self.standing, Fallback(buckets, limits))
        self.buckets = buckets

    def child(self) -> Child:
        return child("rate_limiter", partial(SharedRateLimiter, self.shared, self.metrics))


async def test_the_checks_of_one_moment_are_one_round_trip(autojump_clock: MockClock) -> None:
    setup = Setup()
    async with tree(setup.child()) as system:
        limiter = system.ref("rate_limiter")
        verdicts = await gather(*(partial(limiter.ask, CHECK) for _ in range(6)))
    assert sorted(verdict.retry_after_s for verdict in verdicts) == [0, 0, 0, 0, 1, 1]
    assert setup.limiter.batches == [6]
    assert counts(setup.metrics, "weir_rate_limit_checks_total") == {
        ("caller", "admitted"): 4,
        ("caller", "refused"): 2,
    }


async def test_a_store_that_hangs_costs_its_budget_three_times_and_then_nothing(autojump_clock: MockClock) -> None:
    setup = Setup()
    setup.limiter.store.fault = hangs
    async with tree(setup.child()) as system:
        limiter = system.ref("rate_limiter")
        took = []
        for _ in range(5):
            began = trio.current_time()
            await limiter.ask(CHECK)
            took.append(round(trio.current_time() - began, 3))
    assert took == [0.05, 0.05, 0.05, 0.0, 0.0]
    assert len(setup.limiter.batches) == 3
    assert counts(setup.metrics, "weir_rate_limit_fallbacks_total") == {("decided",): 5}


async def test_the_batch_after_one_that_hangs_waits_for_its_budget_and_no_longer(autojump_clock: MockClock) -> None:
    setup = Setup()
    setup.limiter.store.fault = hangs
    async with tree(setup.child()) as system, trio.open_nursery() as nursery:
        limiter = system.ref("rate_limiter")
        nursery.start_soon(limiter.ask, CHECK)
        await trio.sleep(0.01)
        with trio.fail_after(0.1):
            await limiter.ask(CHECK)


async def test_while_it_is_away_an_instance_counts_its_share(autojump_clock: MockClock) -> None:
    setup = Setup(instances=2)
    setup.standing.health.eject(0.0)
    async with tree(setup.child()) as system:
        limiter = system.ref("rate_limiter")
        verdicts = [await limiter.ask(CHECK) for _ in range(3)]
        assert [verdict.retry_after_s for verdict in verdicts] == [0, 0, 2]
        assert (verdicts[0].states[0].quota, verdicts[0].states[0].window_s) == (60, 60)
        await trio.sleep(2)
        assert (await limiter.ask(CHECK)).retry_after_s == 0
        setup.standing.beaten(Beat(2, 0), renewed=True)
        assert (await limiter.ask(CHECK)).states[0].remaining == 3


async def test_a_limit_that_fails_open_is_none_and_one_that_fails_closed_refuses(autojump_clock: MockClock) -> None:
    is_open = Limit("free", "address", 1, 60, 1, fail="open")
    closed = Limit("login", "address", 1, 60, 1, fail="closed")
    setup = Setup(LIMIT, is_open, closed)
    setup.standing.health.eject(0.0)
    async with tree(setup.child()) as system:
        limiter = system.ref("rate_limiter")
        for _ in range(5):
            assert await limiter.ask(Check((("free", "a"),))) == Verdict(0, (), ())
        with pytest.raises(Reject) as refused:
            await limiter.ask(Check((("caller", "a"), ("login", "a"))))
        assert isinstance(refused.value.error, LimitsUnavailable)
        assert str(refused.value.error) == "login"
        both = await limiter.ask(Check((("caller", "a"), ("free", "a"))))
        assert [(state.name, state.remaining) for state in both.states] == [("caller", 3)], (
            "the refused was not charged"
        )
    assert counts(setup.metrics, "weir_rate_limit_fallbacks_total") == {("decided",): 6, ("unavailable",): 1}


async def test_a_reload_reaches_both_counters_and_a_wrong_one_neither(autojump_clock: MockClock) -> None:
    setup = Setup()
    async with tree(setup.child()) as system:
        limiter = system.ref("rate_limiter")
        await limiter.ask(Reload((Limit("caller", "token", 60, 60, 9),)))
        assert (await limiter.ask(CHECK)).states[0].remaining == 8
        with pytest.raises(Reject):
            await limiter.ask(Reload((LIMIT, LIMIT)))
        setup.standing.health.eject(0.0)
        assert (await limiter.ask(CHECK)).states[0].remaining == 8
        assert await limiter.ask(Check((("gone", "a"),))) == Verdict(0, (), ())


@given(
    st.integers(1, 50),
    st.integers(1, 60),
    st.integers(1, 40),
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, US)), max_size=60),
)
def test_the_shares_of_all_instances_admit_no_more_than_the_limit_and_one_burst_each_way(
    quota: int, window_s: int, burst: int, instances: int, calls: list[tuple[int, int]]
) -> None:
    """Whole requests do not divide: where the burst is below the number of instances, each may still take one."""
    limit = Limit("caller", "token", quota, window_s, burst)
    everybody = [Buckets([share(limit, instances)]) for _ in range(instances)]
    now = start = US
    admitted = 0
    for who, gap in calls:
        now += gap
        admitted += everybody[who % instances].check([("caller", "a")], now).retry_after_s == 0
        at_once = max(burst, instances)
        assert admitted * window_s * US <= at_once * window_s * US + (now - start) * quota
