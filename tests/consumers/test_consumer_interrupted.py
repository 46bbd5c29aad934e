"""The generic consumer when it or what it needs goes away: restarts, stops, cancellation, outages. In virtual time."""

from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.consumers.consumer import Consumer, Go
from actors.consumers.dead_letters import describe
from actors.event_log.messages import Attempts, Commit, Fetch, Progress, SaveAttempt
from actors.metrics import Metrics
from backends.ports.entities import StoreUnavailable
from backends.ports.events import ENTITY_CHANGED
from tests.consumers.fakes import Recorder, count, record, running
from tests.consumers.groups import DLT, PARTITION, consumer, failing, log_with


async def test_the_attempt_is_stored_before_the_wait_and_counting_goes_on_after_a_restart(
    autojump_clock: MockClock,
) -> None:
    log, handler = log_with(record("bad")), failing("bad")
    async with running(log, search=consumer(handler)):
        await trio.sleep(0.6)
    assert len(handler.calls) == 2
    ((_, kept),) = log.attempts["search", PARTITION].items()
    assert (kept.attempts, kept.due_at) == (2, pytest.approx(1.5))
    async with running(log, search=consumer(handler)):
        await trio.sleep(0.5)
        assert len(handler.calls) == 2, "the rest of the wait is waited out"
        await trio.sleep(5)
    assert handler.times_of("bad") == pytest.approx([0.0, 0.5, 1.5])
    assert [describe(letter).attempts for letter in log.read(DLT)] == [3]


async def test_a_record_that_killed_its_last_attempt_is_not_tried_again(autojump_clock: MockClock) -> None:
    log, handler = log_with(record("killer"), record("good")), failing("killer")

    class Killer(Recorder):
        async def handle(self, events: Any) -> None:
            self.calls.append((trio.current_time(), [event.id for _, event in events]))
            if len(self.calls) == 4:  # the batch of two, then three by itself
                snapshot.update(log.attempts["search", PARTITION])
            raise OSError("not yet dead")

    snapshot: dict[int, Any] = {}
    async with running(log, search=consumer(Killer())):
        await trio.sleep(10)
    assert snapshot[0].attempts == 3, "counted before it began"
    # As if the process had died there:
    log.committed.clear()
    log.partitions.pop((DLT, 0))
    log.attempts["search", PARTITION] = {0: snapshot[0]}
    async with running(log, search=consumer(handler)):
        await trio.sleep(0.1)
    assert handler.calls[0][1] == ["good"]
    (letter,) = map(describe, log.read(DLT))
    assert (letter.event_id, letter.attempts, letter.exception) == ("killer", 3, "OSError")


async def test_an_attempt_that_is_cut_off_counts_neither_as_done_nor_as_failed(autojump_clock: MockClock) -> None:
    log, handler, metrics = log_with(record("a")), failing("a"), Metrics()
    async with running(log, search=consumer(handler, metrics)):
        await trio.sleep(0.1)
        handler.hang = True
        await trio.sleep(1.0)  # its second attempt is under way now, and outlives the shutdown budget
        assert log.attempts["search", PARTITION][0].attempts == 2
    assert log.attempts["search", PARTITION][0].attempts == 1
    assert log.committed.get(("search", PARTITION), 0) == 0
    assert not log.read(DLT)
    assert count(metrics, "weir_consumer_failed_attempts_total", "search") == 1


async def test_a_first_delivery_that_is_cut_off_is_delivered_again(autojump_clock: MockClock) -> None:
    log, handler = log_with(record("a")), Recorder()
    handler.hang = True
    async with running(log, search=consumer(handler)):
        await trio.sleep(1)
    assert (log.committed, log.saved) == ({("search", PARTITION): 0}, [])
    assert log.metadata["search", PARTITION] == "", "a stop in order leaves no suspects"
    handler.hang = False
    async with running(log, search=consumer(handler)):
        await trio.sleep(1)
    assert handler.done == ["a"]


async def test_an_outage_of_the_sink_charges_nobody(autojump_clock: MockClock) -> None:
    log, handler = log_with(record("a"), record("b")), failing("a", "b", error=StoreUnavailable)
    async with running(log, search=consumer(handler)):
        await trio.sleep(300)
        assert 5 < len(handler.calls) < 25, "with backoff"
        handler.failing.clear()
        await trio.sleep(40)
    assert handler.done == ["a", "b"]
    assert not log.read(DLT)
    assert log.saved == []


async def test_an_outage_during_a_retry_does_not_use_up_an_attempt(autojump_clock: MockClock) -> None:
    log, handler = log_with(record("a")), failing("a")
    async with running(log, search=consumer(handler)):
        await trio.sleep(0.1)
        handler.failing["a"] = lambda: StoreUnavailable("away")
        await trio.sleep(100)
        assert log.attempts["search", PARTITION][0].attempts == 1
        handler.failing["a"] = lambda: OSError("back, but it fails")
        await trio.sleep(60)
    (letter,) = map(describe, log.read(DLT))
    assert letter.attempts == 3


@pytest.mark.parametrize("message", [Fetch, Progress, Attempts, Commit, SaveAttempt])
async def test_a_log_that_is_away_crashes_nothing_and_is_found_again(message: type, autojump_clock: MockClock) -> None:
    log, handler = log_with(record("a"), record("bad", partition=1)), failing("bad")
    log.refuse.add(message)
    async with running(log, search=consumer(handler)) as system:
        await trio.sleep(20)
        log.refuse.clear()
        log.add(record("b"))
        await trio.sleep(60)
        search = next(child for child in system.snapshot()["children"] if child["id"] == "search")
        assert search["restarts"] == 0
    assert handler.done == ["a", "b"]
    assert log.committed == {("search", PARTITION): 2, ("search", (ENTITY_CHANGED, 1)): 1}
    assert [describe(letter).event_id for letter in log.read(DLT)] == ["bad"]


async def test_a_crashed_consumer_goes_on_where_it_had_committed(autojump_clock: MockClock) -> None:
    log, handler = log_with(record("a")), Recorder()
    async with running(log, search=consumer(handler)) as system:
        await trio.sleep(0.1)
        system.crash("search")
        log.add(record("b"))
        await trio.sleep(5)
        log.add(record("c"))
        await trio.sleep(5)
    assert handler.done == ["a", "b", "c"]


async def test_what_an_earlier_incarnation_told_itself_is_ignored(autojump_clock: MockClock) -> None:
    log, handler = log_with(record("a"), record("b")), Recorder()
    child = consumer(handler)
    stale = Go(child())
    async with running(log, search=child) as system:
        await trio.sleep(0.1)
        log.add(record("c"))
        for _ in range(3):
            await system.ref("search").tell(stale)
        await trio.sleep(3)
        fetches = log.asked[Fetch]
        await trio.sleep(10)
        assert log.asked[Fetch] - fetches <= 21, "there is still one fetch at a time"
    assert handler.done == ["a", "b", "c"]


async def test_an_idle_consumer_stops_at_once(autojump_clock: MockClock) -> None:
    stopped: list[float] = []

    class Watched(Consumer):
        async def on_stop(self) -> None:
            await super().on_stop()
            stopped.append(trio.current_time())

    log, child = log_with(record("a")), consumer(Recorder())
    async with running(log, search=partial(Watched, *child.args, **child.keywords)):
        await trio.sleep(0.1)
    assert stopped == [pytest.approx(0.1)], "a stop does not wait for the long poll"


async def test_what_a_stop_finds_in_hand_is_finished_and_committed(autojump_clock: MockClock) -> None:
    class Slow(Recorder):
        async def handle(self, events: Any) -> None:
            await trio.sleep(1)
            await super().handle(events)

    log, handler = log_with(record("a")), Slow()
    async with running(log, search=consumer(handler)):
        await trio.sleep(0.1)
    assert handler.done == ["a"]
    assert log.committed["search", PARTITION] == 1
