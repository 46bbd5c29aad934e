"""The `cache_manager` actor: one load at a time, and none that brings back the past."""

import gc
import weakref
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import pytest
import trio
from actor_helpers import Scripted, child, counts, gather, tree
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.authenticator.messages import Introspect, Principal
from actors.cache_manager.actor import CacheManager
from actors.cache_manager.loaders import entity_loader, token_loader
from actors.cache_manager.messages import (
    ABSENT,
    MISS,
    TOKEN_VALIDATION,
    USER_PROFILE,
    FlushAll,
    GetMany,
    Invalidate,
    Load,
    Loaded,
)
from actors.cache_manager.store import KindPolicy, LocalTier
from actors.metrics import Metrics
from actors.runtime import ActorCrashed, Child, Ref, Reject
from actors.storage.messages import Read
from backends.ports.entities import Entity, Key, StoreUnavailable

LOAD = Load(USER_PROFILE, "a")
GET = GetMany(USER_PROFILE, ("a",))
INVALIDATE = Invalidate(((USER_PROFILE, "a"),))


class Database:
    """A loader that can be held up: it reads when it is asked and answers when it is let."""

    def __init__(self) -> None:
        self.value: Any = "old"
        self.loads = 0
        self.gate = trio.Event()
        self.gate.set()

    async def load(self, lookup: Callable[[str], Ref[Any]], wanted: Load) -> Loaded:
        self.loads += 1
        value, gate = self.value, self.gate
        await gate.wait()
        return Loaded(value)


def new_tier() -> LocalTier:
    policies = {USER_PROFILE: KindPolicy(ttl=300, jitter=0), TOKEN_VALIDATION: KindPolicy(ttl=60, jitter=0)}
    return LocalTier(policies, Random(1))


def manager(load: Any, metrics: Metrics | None = None, local: LocalTier | None = None) -> Child:
    loaders = {USER_PROFILE: load, TOKEN_VALIDATION: load}
    return child("cache_manager", partial(CacheManager, local or new_tier(), loaders, metrics or Metrics()))


async def test_a_miss_is_loaded_and_then_hit(autojump_clock: MockClock) -> None:
    database, metrics = Database(), Metrics()
    async with tree(manager(database.load, metrics)) as system:
        cache = system.ref("cache_manager")
        assert await cache.ask(GET) == [MISS]
        assert await cache.ask(LOAD) == "old"
        assert await cache.ask(GET) == ["old"]
        assert await cache.ask(LOAD) == "old"
        await trio.sleep(300)
        assert await cache.ask(GET) == [MISS]
    assert database.loads == 1
    assert counts(metrics, "weir_cache_reads_total") == {
        (USER_PROFILE, "local", "miss"): 2,
        (USER_PROFILE, "local", "hit"): 1,
    }
    assert counts(metrics, "weir_cache_loads_total") == {(USER_PROFILE, "stored"): 1}


async def test_an_absent_row_is_known_to_be_absent(autojump_clock: MockClock) -> None:
    database = Database()
    database.value = None
    async with tree(manager(database.load)) as system:
        cache = system.ref("cache_manager")
        assert await cache.ask(LOAD) is ABSENT
        assert await cache.ask(GET) == [ABSENT]


async def test_a_hundred_who_miss_cause_one_load(autojump_clock: MockClock) -> None:
    database = Database()
    database.gate = trio.Event()
    async with tree(manager(database.load)) as system, trio.open_nursery() as nursery:
        cache = system.ref("cache_manager")
        results: list[Any] = []

        async def everybody() -> None:
            results.extend(await gather(*(partial(cache.ask, LOAD) for _ in range(100))))

        nursery.start_soon(everybody)
        await wait_all_tasks_blocked()
        database.gate.set()
    assert (results, database.loads) == (["old"] * 100, 1)


async def test_a_hit_does_not_wait_for_a_load_under_way(autojump_clock: MockClock) -> None:
    database = Database()
    async with tree(manager(database.load)) as system, trio.open_nursery() as nursery:
        cache = system.ref("cache_manager")
        await cache.ask(LOAD)
        database.gate = trio.Event()
        nursery.start_soon(cache.ask, Load(USER_PROFILE, "slow"))
        await wait_all_tasks_blocked()
        with trio.fail_after(0.1):
            assert await cache.ask(GET) == ["old"]
        nursery.cancel_scope.cancel()


async def test_a_load_overtaken_by_an_invalidation_is_answered_but_not_stored(autojump_clock: MockClock) -> None:
    database, metrics = Database(), Metrics()
    held = database.gate = trio.Event()
    async with tree(manager(database.load, metrics)) as system, trio.open_nursery() as nursery:
        cache = system.ref("cache_manager")
        answers: list[Any] = []

        async def read() -> None:
            answers.append(await cache.ask(LOAD))

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        database.value = "new"
        await cache.ask(INVALIDATE)
        held.set()
        await wait_all_tasks_blocked()
        assert answers == ["old"]  # it asked before the write was answered
        assert await cache.ask(GET) == [MISS]
    assert counts(metrics, "weir_cache_loads_total") == {(USER_PROFILE, "discarded"): 1}


@pytest.mark.parametrize("eviction", [INVALIDATE, FlushAll()])
async def test_a_load_asked_for_after_an_invalidation_reads_afresh(eviction: Any, autojump_clock: MockClock) -> None:
    """Else a client that reads after its own write could be given what was there before."""
    database = Database()
    held = database.gate = trio.Event()
    async with tree(manager(database.load)) as system, trio.open_nursery() as nursery:
        cache = system.ref("cache_manager")
        nursery.start_soon(cache.ask, LOAD)
        await wait_all_tasks_blocked()
        database.value, database.gate = "new", trio.Event()
        database.gate.set()
        await cache.ask(eviction)
        assert await cache.ask(LOAD) == "new"
        held.set()
        await wait_all_tasks_blocked()
        assert await cache.ask(GET) == ["new"]  # the old load's end changed nothing
    assert database.loads == 2


class BrokenLoader:
    """Fails, then works: whatever it raised must not have been kept."""

    def __init__(self, error: Exception) -> None:
        self.errors = [error]

    async def load(self, lookup: Any, wanted: Load) -> Loaded:
        if self.errors:
            raise self.errors.pop()
        return Loaded("fine")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(Reject("gone"), "gone"), (StoreUnavailable("away"), StoreUnavailable), (OSError("bug"), OSError)],
)
async def test_errors_reach_the_askers_and_are_never_cached(
    raised: Exception, expected: Any, autojump_clock: MockClock
) -> None:
    async with tree(manager(BrokenLoader(raised).load)) as system:
        cache = system.ref("cache_manager")
        with pytest.raises(Reject) as refused:
            await cache.ask(LOAD)
        error = refused.value.error
        assert error == expected or (isinstance(expected, type) and isinstance(error, expected))
        assert await cache.ask(GET) == [MISS]
        assert await cache.ask(LOAD) == "fine"
        assert system.snapshot()["children"][0]["restarts"] == 0


async def test_a_loader_that_hangs_is_given_up_and_holds_up_nobody(autojump_clock: MockClock) -> None:
    database = Database()
    database.gate = trio.Event()
    async with tree(manager(database.load)) as system:
        cache = system.ref("cache_manager")
        with trio.fail_after(5.5), pytest.raises(Reject) as refused:
            await cache.ask(LOAD)
        assert isinstance(refused.value.error, StoreUnavailable)
        database.gate.set()
        assert await cache.ask(LOAD) == "old"


async def test_a_secret_reaches_the_loader_and_is_forgotten_when_the_load_ends(autojump_clock: MockClock) -> None:
    class Secret:
        """Unlike bytes, it can be watched."""

    seen: list[str] = []

    async def load(lookup: Any, wanted: Load) -> Loaded:
        seen.append(type(wanted.secret).__name__)
        await trio.sleep(1)
        return Loaded("value")

    secret: Any = Secret()
    kept = weakref.ref(secret)
    async with tree(manager(load)) as system:
        await system.ref("cache_manager").ask(Load(TOKEN_VALIDATION, "digest", secret))
        assert seen == ["Secret"]
        del secret
        await wait_all_tasks_blocked()
        gc.collect()
        assert kept() is None


async def test_an_asker_who_leaves_does_not_take_the_load_along(autojump_clock: MockClock) -> None:
    database = Database()
    database.gate = trio.Event()
    async with tree(manager(database.load)) as system:
        cache = system.ref("cache_manager")
        with trio.move_on_after(1):
            await cache.ask(LOAD)
        database.gate.set()
        await wait_all_tasks_blocked()
        assert await cache.ask(GET) == ["old"]


async def test_values_outlive_a_crash_and_waiters_are_served_by_the_next_incarnation(autojump_clock: MockClock) -> None:
    database = Database()
    async with tree(manager(database.load)) as system, trio.open_nursery() as nursery:
        cache = system.ref("cache_manager")
        await cache.ask(LOAD)
        database.gate = trio.Event()
        answers: list[Any] = []

        async def read() -> None:
            answers.append(await cache.ask(Load(USER_PROFILE, "b")))

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        system.crash("cache_manager")
        nursery.start_soon(cache.ask, GET)
        await wait_all_tasks_blocked()
        database.gate.set()
        assert await cache.ask(INVALIDATE) == 1
        await wait_all_tasks_blocked()
    assert (answers, database.loads) == (["old"], 3)


async def test_poison_hurts_nobody_else(autojump_clock: MockClock) -> None:
    async with tree(manager(Database().load)) as system:
        cache = system.ref("cache_manager")
        await cache.ask(LOAD)
        poisoned, hit = await gather(partial(cache.ask, GetMany("nonsense", ("a",))), partial(cache.ask, GET))
        assert isinstance(poisoned, ActorCrashed)
        assert hit == ["old"]


async def test_entities_are_loaded_through_the_reader_for_as_long_as_they_live() -> None:
    for_ever = Entity("user", "a", 1, 0.0, 0.0, b"{}")
    mortal = Entity("user", "b", 1, 0.0, 0.0, b"{}", expires_at=130.0)
    rows = {Key("user", "a"): for_ever, Key("user", "b"): mortal}

    async def read(message: Read) -> Any:
        return rows.get(message.key)

    async with tree(child("storage_reader", partial(Scripted, read, []))) as system:
        load = entity_loader("user", lambda: 100.0)
        assert await load(system.ref, Load(USER_PROFILE, "a")) == Loaded(for_ever)
        assert await load(system.ref, Load(USER_PROFILE, "b")) == Loaded(mortal, 30.0)
        assert await load(system.ref, Load(USER_PROFILE, "c")) == Loaded(None)


async def test_tokens_are_loaded_through_the_auth_service_for_as_long_as_they_live() -> None:
    ann = Principal("ann", frozenset(), "client", 130.0, "digest")

    async def introspect(message: Introspect) -> Any:
        return ann if message.digest == "digest" else None

    async with tree(child("oauth", partial(Scripted, introspect, []))) as system:
        load = token_loader(lambda: 100.0)
        assert await load(system.ref, Load(TOKEN_VALIDATION, "digest")) == Loaded(ann, 30.0)
        assert await load(system.ref, Load(TOKEN_VALIDATION, "unknown")) == Loaded(None)
