"""The generic consumer: order, attempts and their waits, dead letters, restarts, cancellation. In virtual time."""

import pytest
import trio
from trio.testing import MockClock

from actors.consumers.dead_letters import describe, replay_record
from actors.consumers.retry import Permanent
from actors.event_log.messages import Append
from actors.metrics import Metrics
from backends.ports.events import ENTITY_CHANGED, NewRecord
from tests.consumers.fakes import Recorder, count, record, running
from tests.consumers.groups import DLT, PARTITION, consumer, failing, log_with


async def test_a_batch_goes_to_the_handler_at_once_and_is_committed(autojump_clock: MockClock) -> None:
    log, handler, metrics = log_with(record("a"), record("b"), record("c", partition=1)), Recorder(), Metrics()
    async with running(log, search=consumer(handler, metrics)):
        await trio.sleep(0.1)
    assert [ids for _, ids in handler.calls] == [["a", "b", "c"]]
    assert log.committed == {("search", PARTITION): 2, ("search", (ENTITY_CHANGED, 1)): 1}
    assert count(metrics, "weir_consumer_records_total", "search", "done") == 3


async def test_new_records_are_handled_without_waiting_for_the_next_poll(autojump_clock: MockClock) -> None:
    log, handler = log_with(record("a")), Recorder()
    async with running(log, search=consumer(handler)):
        await trio.sleep(0.7)
        log.add(record("b"))
        await trio.sleep(0.01)
        assert handler.done == ["a", "b"]


async def test_three_attempts_with_growing_waits_then_the_dead_letters(autojump_clock: MockClock) -> None:
    log, handler, metrics = log_with(record("bad")), failing("bad"), Metrics()
    async with running(log, search=consumer(handler, metrics)):
        await trio.sleep(10)
    assert handler.times_of("bad") == pytest.approx([0.0, 0.5, 1.5])
    (letter,) = map(describe, log.read(DLT))
    assert (letter.attempts, letter.exception, letter.message) == (3, "OSError", "OSError for a test")
    assert (letter.first_failure, letter.last_failure) == pytest.approx((0.0, 1.5))
    assert log.committed["search", PARTITION] == 1
    assert count(metrics, "weir_dead_letters_total", "search") == 1
    assert count(metrics, "weir_consumer_records_total", "search", "dead") == 1
    assert count(metrics, "weir_consumer_failed_attempts_total", "search") == 3


async def test_a_record_that_recovers_is_handled_in_its_place(autojump_clock: MockClock) -> None:
    log, handler, metrics = log_with(record("a"), record("b"), record("c")), failing("b"), Metrics()
    async with running(log, search=consumer(handler, metrics)):
        await trio.sleep(0.2)
        assert handler.done == ["a"]
        assert log.committed["search", PARTITION] == 1, "the lowest unfinished offset"
        handler.failing.clear()
        await trio.sleep(5)
    assert handler.done == ["a", "b", "c"]
    assert log.committed["search", PARTITION] == 3
    assert not log.read(DLT)
    assert count(metrics, "weir_dead_letters_total", "search") == 0


async def test_when_a_batch_fails_only_the_failing_record_is_charged(autojump_clock: MockClock) -> None:
    log, handler = log_with(*(record(id) for id in "abcd")), failing("c")
    async with running(log, search=consumer(handler)):
        await trio.sleep(10)
    assert {offset for _, offset, _ in log.saved} == {2}
    assert sorted(handler.done) == ["a", "b", "d"]
    assert [describe(letter).event_id for letter in log.read(DLT)] == ["c"]


async def test_a_failing_record_blocks_its_partition_alone(autojump_clock: MockClock) -> None:
    log = log_with(record("bad"), record("behind"), record("other", partition=1))
    handler = failing("bad")
    async with running(log, search=consumer(handler)):
        await trio.sleep(0.1)
        log.add(record("another", partition=1))
        await trio.sleep(0.1)
        assert handler.done == ["other", "another"]
        await trio.sleep(5)
        assert handler.done == ["other", "another", "behind"]


async def test_an_undecodable_record_goes_to_the_dead_letters_at_once(autojump_clock: MockClock) -> None:
    garbage = NewRecord(ENTITY_CHANGED, b"k", b"\xfe\x00garbage", (("ce_specversion", b"1.0"),), 0)
    log, handler = log_with(record("a"), garbage, record("b")), Recorder()
    async with running(log, search=consumer(handler)):
        await trio.sleep(0.1)
        assert handler.done == ["a", "b"]
        (dead,) = log.read(DLT)
        assert dead.value == garbage.value
        assert describe(dead).attempts == 1
        assert "ce_" in describe(dead).message


async def test_a_permanently_invalid_event_goes_to_the_dead_letters_at_once(autojump_clock: MockClock) -> None:
    log, handler = log_with(record("bad"), record("good")), failing("bad", error=Permanent)
    async with running(log, search=consumer(handler)):
        await trio.sleep(0.1)
        assert handler.done == ["good"]
        assert len(log.read(DLT)) == 1


async def test_a_dead_letter_that_cannot_be_stored_keeps_the_offset(autojump_clock: MockClock) -> None:
    log, handler, metrics = log_with(record("bad"), record("good")), failing("bad", error=Permanent), Metrics()
    log.refuse.add(Append)
    async with running(log, search=consumer(handler, metrics)):
        await trio.sleep(60)
        assert log.committed.get(("search", PARTITION), 0) == 0
        assert handler.done == []
        assert log.refused[Append] > 3, "it is tried again, with backoff"
        assert log.refused[Append] < 20
        assert count(metrics, "weir_dead_letters_total", "search") == 0
        log.refuse.clear()
        await trio.sleep(60)
    assert len(log.read(DLT)) == 1
    assert log.committed["search", PARTITION] == 2
    assert handler.done == ["good"]


async def test_a_handler_that_hangs_fails_its_attempt(autojump_clock: MockClock) -> None:
    log, handler = log_with(record("a")), Recorder()
    handler.hang = True
    async with running(log, search=consumer(handler)):
        await trio.sleep(120)
    (letter,) = map(describe, log.read(DLT))
    assert letter.exception == "TimeoutError"
    assert handler.times_of("a") == pytest.approx([0, 30.5, 61.5])


async def test_replays_are_consumed_though_their_topic_comes_later(autojump_clock: MockClock) -> None:
    log, handler = log_with(record("bad")), failing("bad", error=Permanent)
    async with running(log, search=consumer(handler)):
        await trio.sleep(1)
        (dead,) = log.read(DLT)
        log.add(replay_record(dead))
        await trio.sleep(5)
        first, second = map(describe, log.read(DLT))
        assert (second.origin, second.replay_count) == (first.origin, 1)
        handler.failing.clear()
        log.add(replay_record(log.read(DLT)[1]))
        await trio.sleep(0.01)
    assert handler.done == ["bad"]
    assert log.committed["search", ("entity.changed.search.retry", 0)] == 2
