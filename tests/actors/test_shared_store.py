"""Whether the shared store is asked and believed, and the actor that watches it."""

from functools import partial
from typing import Any

import trio
from actor_helpers import child, counts, tree
from trio.testing import MockClock

from actors.metrics import Metrics
from actors.runtime import Child
from actors.shared_store.actor import SharedStore
from actors.shared_store.standing import Standing
from backends.ports.shared import Beat, SharedStoreAway
from tests.backends.shared_fakes import MemoryCache, MemoryPresence, is_another, refuses

AWAY = SharedStoreAway("no answer")
LOST = SharedStoreAway("another server", lost=True)
ALONE = Beat(1, 0)


def joined() -> Standing:
    standing = Standing()
    assert standing.needs_epoch(ALONE, 0.0)
    assert standing.beaten(ALONE, renewed=True)
    assert standing.readable
    return standing


def test_it_begins_as_away() -> None:
    standing = Standing()
    assert (standing.usable, standing.readable) == (False, False)
    assert standing.wait(5.0, every=1.0) == 0.0


def test_three_failures_in_a_row_give_it_up_and_a_heartbeat_brings_it_back() -> None:
    standing = joined()
    for _ in range(2):
        assert not standing.failed(AWAY, 1.0)
    standing.answered()
    assert [standing.failed(AWAY, 1.0) for _ in range(4)] == [False, False, True, False]
    assert not standing.usable
    standing.answered()  # sent before: it says nothing new
    assert not standing.usable
    assert standing.wait(1.0, every=1.0) == 0.25
    standing.health.begin()
    assert standing.beaten(ALONE, renewed=False)
    assert standing.readable, "an outage that no probe saw loses nothing that is not owed anyway"


def test_one_heartbeat_that_fails_gives_it_up() -> None:
    standing = joined()
    assert standing.failed(AWAY, 1.0, heartbeat=True)
    assert standing.reason == "no answer"


def test_after_an_outage_that_outlived_a_probe_nothing_old_is_believed() -> None:
    standing = joined()
    standing.failed(AWAY, 1.0, heartbeat=True)
    waits = []
    for _ in range(4):
        standing.health.begin()
        standing.probe_failed(AWAY, 1.0)
        waits.append(standing.wait(1.0, every=1.0))
    assert waits == [0.5, 1.0, 1.0, 1.0]
    crowd = Beat(9, 8)
    assert standing.needs_epoch(crowd, 9.0)
    standing.beaten(crowd, renewed=True)
    assert standing.readable
    assert standing.instances == 9


def test_another_run_of_the_store_is_given_up_and_disbelieved_at_once() -> None:
    standing = joined()
    assert standing.failed(LOST, 1.0)
    assert (standing.usable, standing.trusted) == (False, False)
    assert not standing.failed(LOST, 1.0)
    assert standing.needs_epoch(ALONE, 2.0)


def test_who_joins_others_believes_once_one_of_them_is_known_to_live() -> None:
    """Those have heard of every eviction. Marks of the dead, this one's own last life among them, say nothing."""
    standing = Standing()
    assert not standing.needs_epoch(Beat(2, 0), 0.0)
    standing.beaten(Beat(2, 0), renewed=False)
    assert (standing.usable, standing.readable) == (True, False)
    assert not standing.needs_epoch(Beat(2, 0), 1.0)
    assert standing.needs_epoch(Beat(2, 0), 3.0), "nobody spoke: they are dead"
    assert not standing.needs_epoch(Beat(2, 1), 3.0)
    standing.beaten(Beat(2, 1), renewed=False)
    assert standing.readable


# -- The actor


def watcher(presence: MemoryPresence, cache: MemoryCache, standing: Standing, metrics: Metrics | None = None) -> Child:
    return child("redis", partial(SharedStore, presence, cache, standing, metrics or Metrics()))


def shown(system: Any) -> dict[str, Any]:
    detail: dict[str, Any] = system.snapshot()["children"][0]["detail"]
    return detail


async def test_who_is_first_begins_a_new_epoch_and_what_starts_next_finds_it_joined(autojump_clock: MockClock) -> None:
    presence, cache, standing, metrics = MemoryPresence(), MemoryCache(), Standing(), Metrics()
    async with tree(watcher(presence, cache, standing, metrics)) as system:
        assert standing.readable
        assert cache.calls == [("renew", None)]
        assert "degraded" not in shown(system)
        await trio.sleep(3.5)
        assert presence.beats == [True, False, False, False]
    assert presence.left
    assert counts(metrics, "weir_shared_store_epochs_total") == {(): 1}


async def test_a_store_that_is_not_there_stops_nobody_from_starting_and_is_reached_for(
    autojump_clock: MockClock,
) -> None:
    presence, cache, standing = MemoryPresence(), MemoryCache(), Standing()
    presence.fault = refuses
    async with tree(watcher(presence, cache, standing)) as system:
        assert not standing.usable
        assert shown(system)["degraded"] == "redis://memory is away: connection refused"
        await trio.sleep(10)
        assert len(presence.beats) >= 10
        presence.fault = None
        await trio.sleep(1)
        assert standing.readable
        assert "degraded" not in shown(system)
        assert system.snapshot()["children"][0]["restarts"] == 0
    assert cache.calls == [("renew", None)]


async def test_another_server_is_taken_by_a_probe_alone_and_gets_a_new_epoch_first(autojump_clock: MockClock) -> None:
    presence, cache, standing = MemoryPresence(), MemoryCache(), Standing()
    async with tree(watcher(presence, cache, standing)):
        presence.fault = is_another
        await trio.sleep(1.1)
        assert (standing.usable, standing.trusted) == (False, False)
        presence.fault = None
        await trio.sleep(0.3)
        assert standing.readable
    assert presence.beats[:3] == [True, False, True]
    assert cache.calls == [("renew", None)] * 2


async def test_without_its_new_epoch_the_store_stays_away(autojump_clock: MockClock) -> None:
    presence, cache, standing = MemoryPresence(), MemoryCache(), Standing()
    cache.fault = refuses
    async with tree(watcher(presence, cache, standing)):
        await trio.sleep(5)
        assert not standing.usable
        cache.fault = None
        await trio.sleep(1)
        assert standing.readable
