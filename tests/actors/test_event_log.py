"""The event log's actor on a log in memory."""

from functools import partial
from typing import Any

import pytest
import trio
from actor_helpers import child, counts, gather, tree
from memory_log import MemoryLog
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.event_log.actor import EventLogActor, behind
from actors.event_log.messages import (
    Append,
    Appended,
    Attempts,
    Commit,
    DropRecords,
    Ends,
    Fetch,
    Lag,
    Positions,
    ReadRecord,
    SaveAttempt,
    Topics,
)
from actors.event_log.waiters import Waiter, Waiters
from actors.metrics import Metrics
from actors.runtime import ActorCrashed, Child, Reject
from backends.ports.entities import StoreUnavailable
from backends.ports.event_log import Attempt, Topic
from backends.ports.events import NewRecord

AUDIT = Topic("audit", 2, None)
TRY = Attempt(1, 10.0, 5.0, 5.0, "timeout")


def new(value: bytes = b"{}", topic: str = "audit", partition: int = 0) -> NewRecord:
    return NewRecord(topic, b"key", value, (), partition)


def fetch(max_wait: float, topic: str = "audit", offset: int = 0) -> Fetch:
    return Fetch({(topic, 0): offset}, 100, max_wait)


def log_child(log: Any, metrics: Metrics | None = None) -> Child:
    return child("event_log", partial(EventLogActor, log, [AUDIT], metrics or Metrics()), retry=False)


async def test_appends_of_one_moment_are_one_append_and_each_learns_its_places(autojump_clock: MockClock) -> None:
    log, metrics = MemoryLog(), Metrics()
    async with tree(log_child(log, metrics)) as system:
        ref = system.ref("event_log")
        appends = [Append((new(b"1"), new(b"2"))), Append((new(b"3", partition=1),), durable=True), Append(())]
        places = await gather(*(partial(ref.ask, append) for append in appends))
        for append, placed in zip(appends, places, strict=True):
            for record, (partition, offset) in zip(append.records, placed, strict=True):
                stored = await ref.ask(ReadRecord((record.topic, partition), offset))
                assert stored.value == record.value
    assert log.appends == [(3, True)]
    assert counts(metrics, "weir_event_log_appended_total") == {("audit",): 3}


async def test_without_a_durable_one_an_append_is_not_durable(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with tree(log_child(log)) as system:
        await system.ref("event_log").ask(Append((new(),)))
    assert log.appends == [(1, False)]


async def test_a_record_the_log_refuses_costs_no_other_append(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with tree(log_child(log)) as system:
        ref = system.ref("event_log")
        good, bad, late = await gather(*(partial(ref.ask, Append((new(value),))) for value in (b"1", b"bad", b"2")))
        assert isinstance(bad.error, ValueError)
        assert sorted([*good, *late]) == [(0, 0), (0, 1)]
        assert system.snapshot()["children"][0]["restarts"] == 0


async def test_a_fetch_that_finds_records_or_may_not_wait_is_answered_at_once(autojump_clock: MockClock) -> None:
    async with tree(log_child(MemoryLog())) as system:
        ref = system.ref("event_log")
        with trio.fail_after(0.1):
            assert await ref.ask(fetch(0)) == []
            await ref.ask(Append((new(b"1"),)))
            assert [record.value for record in await ref.ask(fetch(60))] == [b"1"]


@pytest.mark.parametrize("how", ["append", "appended"])
async def test_a_waiting_fetch_is_woken_by_its_topic(how: str, autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with tree(log_child(log)) as system, trio.open_nursery() as nursery:
        ref = system.ref("event_log")
        found: list[Any] = []

        async def read() -> None:
            found.append(([r.value for r in await ref.ask(fetch(60))], trio.current_time()))

        nursery.start_soon(read)
        await trio.sleep(7)
        if how == "append":
            await ref.ask(Append((new(b"1"),)))
        else:
            await log.append([new(b"1")], durable=False)  # by the storage writer, in its own transaction
            ref.try_tell(Appended(frozenset({"audit"})))
    assert found == [([b"1"], 7)]


async def test_a_fetch_waits_no_longer_than_its_max_wait(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with tree(log_child(log)) as system:
        start = trio.current_time()
        assert await system.ref("event_log").ask(fetch(3)) == []
        assert trio.current_time() - start == pytest.approx(3)
    assert log.fetches == 1  # it looked once, and nobody polled


async def test_appends_to_other_topics_wake_nobody(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with tree(log_child(log)) as system, trio.open_nursery() as nursery:
        ref = system.ref("event_log")
        nursery.start_soon(ref.ask, fetch(5))
        await wait_all_tasks_blocked()
        await ref.ask(Append((new(topic="other"),)))
        await wait_all_tasks_blocked()
        assert log.fetches == 1


async def test_a_waiting_fetch_holds_up_no_other_message(autojump_clock: MockClock) -> None:
    async with tree(log_child(MemoryLog())) as system, trio.open_nursery() as nursery:
        ref = system.ref("event_log")
        nursery.start_soon(ref.ask, fetch(60))
        await wait_all_tasks_blocked()
        with trio.fail_after(0.1):
            assert await ref.ask(Ends("audit")) == {("audit", 0): 0, ("audit", 1): 0}
        nursery.cancel_scope.cancel()


async def test_a_fetch_whose_engine_goes_away_while_it_waits_is_told(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with tree(log_child(log)) as system:
        ref = system.ref("event_log")

        async def trouble() -> None:
            await trio.sleep(1)
            log.fault = StoreUnavailable("away")
            await ref.tell(Appended(frozenset({"audit"})))

        refused, _ = await gather(partial(ref.ask, fetch(60)), trouble)
        assert isinstance(refused.error, StoreUnavailable)


async def test_a_group_goes_on_where_it_committed_and_else_at_the_start(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    log.starts = {("audit", 0): 4, ("audit", 1): 6}
    async with tree(log_child(log)) as system:
        ref = system.ref("event_log")
        await ref.ask(Commit("g", {("audit", 1): 9}))
        assert await ref.ask(Positions("g", "audit")) == {("audit", 0): 4, ("audit", 1): 9}


async def test_lag_is_the_end_less_the_committed_offset(autojump_clock: MockClock) -> None:
    async with tree(log_child(MemoryLog())) as system:
        ref = system.ref("event_log")
        await ref.ask(Append((new(), new(), new(), new(partition=1))))
        await ref.ask(Commit("g", {("audit", 0): 1}))
        assert await ref.ask(Lag()) == {("g", "audit", 0): 2, ("g", "audit", 1): 1}


def test_what_expired_before_a_group_came_to_it_is_not_behind_it() -> None:
    partition = ("audit", 0)
    assert behind(partition, 10, {partition: 2}, {partition: 7}) == 3
    assert behind(partition, 10, {partition: 10}, {partition: 10}) == 0
    assert behind(partition, 10, {}, {}) == 10


async def test_attempts_records_and_topics_go_through(autojump_clock: MockClock) -> None:
    async with tree(log_child(MemoryLog())) as system:
        ref = system.ref("event_log")
        await ref.ask(Append((new(b"1"),)))
        await ref.ask(SaveAttempt("g", ("audit", 0), 0, TRY))
        assert await ref.ask(Attempts("g", ("audit", 0))) == {0: TRY}
        assert await ref.ask(Attempts("h", ("audit", 0))) == {}
        assert (await ref.ask(ReadRecord(("audit", 0), 0))).value == b"1"
        assert await ref.ask(DropRecords(("audit", 0), (0,))) == 1
        assert await ref.ask(ReadRecord(("audit", 0), 0)) is None
        assert await ref.ask(Topics()) == [AUDIT]


@pytest.mark.parametrize("fault", [StoreUnavailable("away"), OSError("a broken page")])
async def test_an_operation_that_fails_fails_its_asker_only(fault: Exception, autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with tree(log_child(log)) as system:
        ref = system.ref("event_log")
        log.fault = fault
        for message in (Append((new(),)), fetch(0), fetch(5), Lag(), Commit("g", {})):
            with pytest.raises(Reject) as refused:
                await ref.ask(message)
            assert refused.value.error is fault
        log.fault = None
        assert await ref.ask(Append((new(),))) == [(0, 0)]
        assert system.snapshot()["children"][0]["restarts"] == 0


async def test_an_engine_that_is_away_at_the_start_gets_its_topics_later(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    log.fault = StoreUnavailable("away")
    async with tree(log_child(log)) as system:
        assert system.snapshot()["children"][0]["state"] == "ready"
        await trio.sleep(10)
        log.fault = None
        await trio.sleep(10)
        assert await system.ref("event_log").ask(Topics()) == [AUDIT]


async def test_poison_crashes_it_once_and_the_next_incarnation_serves(autojump_clock: MockClock) -> None:
    async with tree(log_child(MemoryLog())) as system:
        ref = system.ref("event_log")
        await ref.ask(Append((new(b"1"),)))
        with pytest.raises(ActorCrashed):
            await ref.ask("poison")
        assert [record.value for record in await ref.ask(fetch(1))] == [b"1"]


async def test_an_append_while_a_fetch_looks_is_not_overlooked(autojump_clock: MockClock) -> None:
    """The wake-up comes between the look that finds nothing and the wait: it must not be lost."""
    waiter, waiters = Waiter(frozenset({"audit"})), Waiters()
    waiters.add(waiter)
    waiters.touch(["audit"])
    with trio.fail_after(1):
        await waiter.wait()
    with trio.move_on_after(1) as scope:
        await waiter.wait()
    assert scope.cancelled_caught
    waiters.remove(waiter)
    assert len(waiters) == 0
