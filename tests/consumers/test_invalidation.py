"""The broadcast: read from the end, and a flush whenever something may have been missed."""

from functools import partial
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from actors.consumers.invalidation import BRIEF_WAITS, CacheInvalidation
from actors.event_log.messages import Ends, Fetch
from actors.metrics import Metrics
from backends.ports.broadcast import Unheard
from backends.ports.events import CACHE_INVALIDATE, NewRecord
from tests.consumers.fakes import FakeCache, MaxJitter, MemoryLog, running


def invalidate(*keys: tuple[str, str], raw: bytes | None = None) -> NewRecord:
    return NewRecord(CACHE_INVALIDATE, b"k", raw or msgspec.json.encode({"keys": keys}), (), 0)


def children(heard: list[Any]) -> dict[str, Any]:
    return {
        "cache_manager": partial(FakeCache, heard),
        "invalidation": partial(CacheInvalidation, metrics=Metrics(), rng=MaxJitter()),
    }


async def test_it_begins_at_the_end_with_a_flush(autojump_clock: MockClock) -> None:
    log, heard = MemoryLog(), []
    log.add(invalidate(("user_profile", "old")))
    async with running(log, **children(heard)):
        await trio.sleep(0.1)
        log.add(invalidate(("user_profile", "new")))
        await trio.sleep(0.01)
        assert heard == ["flush", (("user_profile", "new"),)]
        assert not log.committed


async def test_events_of_one_moment_become_one_eviction(autojump_clock: MockClock) -> None:
    log, heard = MemoryLog(), []
    log.add(invalidate())
    async with running(log, **children(heard)):
        await trio.sleep(0.1)
        log.add(invalidate(("user_profile", "a"), ("user_profile", "b")), invalidate(("user_profile", "a")))
        await trio.sleep(0.01)
        assert heard[1:] == [(("user_profile", "a"), ("user_profile", "b"))]


async def test_a_topic_that_comes_later_is_read_from_its_start(autojump_clock: MockClock) -> None:
    log, heard = MemoryLog(), []
    async with running(log, **children(heard)):
        await trio.sleep(3.5)
        log.add(invalidate(("user_profile", "first")))
        await trio.sleep(2)
        assert heard == ["flush", (("user_profile", "first"),)]


async def test_an_event_that_cannot_be_read_flushes(autojump_clock: MockClock) -> None:
    log, heard = MemoryLog(), []
    log.add(invalidate())
    async with running(log, **children(heard)):
        await trio.sleep(0.1)
        log.add(invalidate(raw=b"garbage"))
        await trio.sleep(0.01)
        assert heard == ["flush", "flush"]


async def test_a_gap_flushes(autojump_clock: MockClock) -> None:
    log, heard = MemoryLog(), []
    log.add(invalidate())
    async with running(log, **children(heard)):
        await trio.sleep(0.1)
        (held,) = log.read(CACHE_INVALIDATE)
        log.partitions[CACHE_INVALIDATE, 0] += [msgspec.structs.replace(held, offset=7)]
        log.add(invalidate(("user_profile", "a")))
        await trio.sleep(0.01)
        assert heard[:2] == ["flush", "flush"]


@pytest.mark.parametrize("message", [Fetch, Ends])
async def test_after_an_outage_of_the_log_everything_is_flushed(message: type, autojump_clock: MockClock) -> None:
    log, heard = MemoryLog(), []
    log.add(invalidate())
    async with running(log, **children(heard)) as system:
        await trio.sleep(0.1)
        log.refuse |= {message, Fetch}
        await trio.sleep(20)
        log.add(invalidate(("user_profile", "missed")))
        log.refuse.clear()
        await trio.sleep(20)
        assert heard[-1] == "flush"
        assert next(c for c in system.snapshot()["children"] if c["id"] == "invalidation")["restarts"] == 0


async def test_a_crash_flushes(autojump_clock: MockClock) -> None:
    log, heard = MemoryLog(), []
    log.add(invalidate())
    async with running(log, **children(heard)) as system:
        await trio.sleep(0.1)
        system.crash("invalidation")
        log.add(invalidate(("user_profile", "in hand")))
        await trio.sleep(5)
        assert heard == ["flush", "flush"]
        log.add(invalidate(("user_profile", "later")))
        await trio.sleep(0.01)
        assert heard[2:] == [(("user_profile", "later"),)]


async def test_a_cache_that_restarts_misses_nothing(autojump_clock: MockClock) -> None:
    log, heard = MemoryLog(), []
    log.add(invalidate())
    async with running(log, **children(heard)) as system:
        await trio.sleep(0.1)
        system.crash("cache_manager")
        log.add(invalidate(("user_profile", "lost in the crash")))
        await trio.sleep(10)
        assert heard == ["flush", "flush"]


class Radio:
    """A broadcast by script: silent from *silent_from* to *silent_to*."""

    def __init__(self, silent_from: float, silent_to: float) -> None:
        self.silence = silent_from, silent_to
        self.begun: list[float] = []

    def _check(self) -> None:
        if self.silence[0] <= trio.current_time() < self.silence[1]:
            raise Unheard("nothing from cache.invalidate/0 for 3 s")

    async def begin(self) -> dict[tuple[str, int], int]:
        await trio.lowlevel.checkpoint()
        self._check()
        self.begun.append(trio.current_time())
        return {(CACHE_INVALIDATE, 0): 0}

    async def read(self, limit: int, max_wait: float) -> list[Any]:
        await trio.sleep(min(max_wait, max(0.0, self.silence[0] - trio.current_time()) or max_wait))
        self._check()
        return []


async def test_a_broadcast_that_is_not_heard_flushes_at_once_and_until_it_is(autojump_clock: MockClock) -> None:
    """Its own tier again and again; the tier that instances share once, when it is heard."""
    start = trio.current_time()
    radio, flushed, shared = Radio(start + 10, start + 70), [], []

    class Cache(FakeCache):
        async def handle(self, message: Any) -> None:
            (shared if message.shared else flushed).append(trio.current_time() - start)

    cache = partial(Cache, [])
    listener = partial(CacheInvalidation, metrics=Metrics(), rng=MaxJitter(), broadcast=radio)
    async with running(MemoryLog(), cache_manager=cache, invalidation=listener):
        await trio.sleep(100)
    during = [at for at in flushed if 10 <= at < 70]
    assert during[0] == pytest.approx(10, abs=0.001)
    assert max(later - earlier for earlier, later in pairwise(during)) <= 0.501
    assert shared[0] == 0
    assert 70 <= shared[1] <= 70 + BRIEF_WAITS.cap + 1
    assert [at for at in flushed if at > shared[1]] == []
    assert len(radio.begun) == len(shared) == 2
