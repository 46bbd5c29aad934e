"""The `rate_limiter` actor: the clock, a crash, a reload."""

from functools import partial

import pytest
import trio
from actor_helpers import child, counts

from actors.metrics import Metrics
from actors.rate_limiter.actor import RateLimiter
from actors.rate_limiter.messages import Check, Limit, Reload
from actors.rate_limiter.store import Buckets
from actors.runtime import ActorCrashed, Reject
from actors.runtime.testing import OpenSystem

LIMIT = Limit("caller", "token", 60, 60, 2)
CHECK = Check((("caller", "a"),))


async def test_what_a_limit_refuses_it_admits_after_its_retry_time(actor_system: OpenSystem) -> None:
    metrics = Metrics()
    async with actor_system(child("rate_limiter", partial(RateLimiter, Buckets([LIMIT]), metrics))) as system:
        limiter = system.ref("rate_limiter")
        verdicts = [await limiter.ask(CHECK) for _ in range(3)]
        assert [v.retry_after_s for v in verdicts] == [0, 0, 1]
        await trio.sleep(1)
        assert (await limiter.ask(CHECK)).retry_after_s == 0
    assert counts(metrics, "weir_rate_limit_checks_total") == {("caller", "admitted"): 3, ("caller", "refused"): 1}


async def test_a_crash_gives_nobody_a_fresh_quota(actor_system: OpenSystem) -> None:
    async with actor_system(child("rate_limiter", partial(RateLimiter, Buckets([LIMIT]), Metrics()))) as system:
        limiter = system.ref("rate_limiter")
        assert (await limiter.ask(CHECK)).retry_after_s == 0
        with pytest.raises(ActorCrashed):
            await limiter.ask("poison")
        assert (await limiter.ask(CHECK)).retry_after_s == 0
        assert (await limiter.ask(CHECK)).retry_after_s == 1
        assert len(system.exits("rate_limiter")) == 2  # the poison was given once more, alone


async def test_a_reload_replaces_the_limits_and_outlives_a_crash(actor_system: OpenSystem) -> None:
    async with actor_system(child("rate_limiter", partial(RateLimiter, Buckets([LIMIT]), Metrics()))) as system:
        limiter = system.ref("rate_limiter")
        await limiter.ask(Reload((Limit("caller", "token", 10, 1, 5),)))
        await system.crash("rate_limiter")
        state = (await limiter.ask(CHECK)).states[0]
        assert (state.quota, state.remaining) == (10, 4)


async def test_a_reload_that_makes_no_limit_changes_nothing(actor_system: OpenSystem) -> None:
    async with actor_system(child("rate_limiter", partial(RateLimiter, Buckets([LIMIT]), Metrics()))) as system:
        limiter = system.ref("rate_limiter")
        with pytest.raises(Reject) as refused:
            await limiter.ask(Reload((Limit("caller", "token", 0, 1, 5),)))
        assert isinstance(refused.value.error, ValueError)
        assert (await limiter.ask(CHECK)).states[0].quota == 60
