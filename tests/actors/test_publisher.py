"""The publisher: batches, order, an event log that comes and goes, a stop, a crash."""

from functools import partial
from typing import Any

import pytest
import trio
from actor_helpers import Scripted, child, counts, tree
from trio.testing import MockClock

from actors.event_log.messages import Append
from actors.metrics import Metrics
from actors.publisher.actor import Publisher, retry_delay
from actors.publisher.buffer import EventBuffer
from actors.publisher.messages import Flush, Publish
from actors.runtime import ActorCrashed, Child
from backends.ports.entities import StoreUnavailable
from backends.ports.events import Event


def event(number: int, key: str = "user/1") -> Event:
    return Event("audit", key, "user.read", f"id-{number}", 1_700_000_000.0, b"{}")


class Log:
    """An event log by script: it can be away, or hang."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.tries: list[float] = []
        self.away = False
        self.hang = False

    async def answer(self, message: Append) -> Any:
        self.tries.append(trio.current_time())
        if self.hang:
            await trio.sleep_forever()
        if self.away:
            raise StoreUnavailable("away")
        self.batches.append([dict(record.headers)["ce_id"].decode() for record in message.records])
        return [(0, offset) for offset in range(len(message.records))]

    @property
    def ids(self) -> list[str]:
        return [id for batch in self.batches for id in batch]

    def tree(self, buffer: EventBuffer, metrics: Metrics | None = None, **options: Any) -> tuple[Child, Child]:
        return (
            child("event_log", partial(Scripted, self.answer, [])),
            child("publisher", partial(Publisher, buffer, metrics or Metrics(), **options)),
        )


def ids(*numbers: int) -> list[str]:
    return [f"id-{number}" for number in numbers]


async def test_events_of_one_moment_are_one_append_in_order(autojump_clock: MockClock) -> None:
    log = Log()
    async with tree(*log.tree(EventBuffer())) as system:
        publisher = system.ref("publisher")
        for number in range(100):
            assert publisher.try_tell(Publish(event(number)))
        await trio.sleep(0.021)
        assert log.batches == [ids(*range(100))]


async def test_nothing_waits_longer_than_the_linger(autojump_clock: MockClock) -> None:
    log = Log()
    async with tree(*log.tree(EventBuffer())) as system:
        for number in range(10):
            await system.ref("publisher").tell(Publish(event(number)))
            start = trio.current_time()
            await trio.sleep(0.15)
            assert log.tries[-1] - start <= 0.02001
    assert len(log.batches) == 10


async def test_an_idle_publisher_does_nothing(autojump_clock: MockClock) -> None:
    log = Log()
    async with tree(*log.tree(EventBuffer())):
        await trio.sleep(3_600)
    assert log.tries == []


async def test_a_full_batch_does_not_wait_for_company(autojump_clock: MockClock) -> None:
    log = Log()
    async with tree(*log.tree(EventBuffer(), batch=10, linger=60.0)) as system:
        for number in range(20):
            assert system.ref("publisher").try_tell(Publish(event(number)))
        await trio.sleep(0.001)
        assert log.batches == [ids(*range(10)), ids(*range(10, 20))]


async def test_flush_is_answered_when_all_before_it_is_in_the_log(autojump_clock: MockClock) -> None:
    log = Log()
    async with tree(*log.tree(EventBuffer(), linger=60.0)) as system:
        publisher = system.ref("publisher")
        await publisher.ask(Flush())
        await publisher.tell(Publish(event(1)))
        with trio.fail_after(1):
            await publisher.ask(Flush())
        assert log.ids == ids(1)


async def test_an_event_log_that_is_away_loses_nothing(autojump_clock: MockClock) -> None:
    log, metrics = Log(), Metrics()
    log.away = True
    async with tree(*log.tree(EventBuffer(), metrics)) as system:
        publisher = system.ref("publisher")
        await publisher.tell(Publish(event(1)))
        await trio.sleep(10)
        await publisher.tell(Publish(event(2)))
        log.away = False
        await publisher.ask(Flush())
    assert log.ids == ids(1, 2)
    waits = [later - earlier for earlier, later in zip(log.tries, log.tries[1:], strict=False)]
    assert waits[:6] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
    assert counts(metrics, "weir_publisher_append_failures_total")[()] >= 6


async def test_an_event_log_that_hangs_is_asked_again(autojump_clock: MockClock) -> None:
    log = Log()
    log.hang = True
    async with tree(*log.tree(EventBuffer(), append_timeout=5.0)) as system:
        await system.ref("publisher").tell(Publish(event(1)))
        await trio.sleep(4)
        log.hang = False
        await trio.sleep(2)
        assert log.ids == ids(1)


def test_retries_back_off_to_a_cap() -> None:
    assert [retry_delay(n) for n in (1, 2, 3, 50)] == [0.1, 0.2, 0.4, 5.0]


async def test_what_has_no_room_is_dropped_and_counted(autojump_clock: MockClock) -> None:
    log, metrics = Log(), Metrics()
    log.away = True
    async with tree(*log.tree(EventBuffer(capacity=2), metrics)) as system:
        publisher = system.ref("publisher")
        assert [await publisher.ask(Publish(event(number))) for number in range(3)] == [True, True, False]
        log.away = False
        await publisher.ask(Flush())
    assert log.ids == ids(0, 1)
    assert counts(metrics, "weir_audit_dropped_total") == {("full",): 1}


def test_a_refusing_buffer_says_so_before_the_work_is_done() -> None:
    refusing, dropping = EventBuffer(1, "refuse"), EventBuffer(1, "drop")
    assert not refusing.refusing
    for buffer in (refusing, dropping):
        assert buffer.offer(event(1))
        assert buffer.full
    assert refusing.refusing
    assert not dropping.refusing


async def test_an_event_that_cannot_be_encoded_costs_no_other(autojump_clock: MockClock) -> None:
    log, metrics = Log(), Metrics()
    async with tree(*log.tree(EventBuffer(), metrics)) as system:
        publisher = system.ref("publisher")
        for published in (event(1), event(2, key="\udc80"), event(3)):
            await publisher.tell(Publish(published))
        await publisher.ask(Flush())
        assert system.snapshot()["children"][1]["restarts"] == 0
    assert log.ids == ids(1, 3)
    assert counts(metrics, "weir_audit_dropped_total") == {("invalid",): 1}


async def test_a_stop_appends_what_is_left(autojump_clock: MockClock) -> None:
    log = Log()
    async with tree(*log.tree(EventBuffer(), linger=60.0)) as system:
        for number in range(3):
            await system.ref("publisher").tell(Publish(event(number)))
    assert log.ids == ids(0, 1, 2)


async def test_a_stop_does_not_wait_for_ever_for_a_log_that_is_away(autojump_clock: MockClock) -> None:
    log, buffer = Log(), EventBuffer()
    log.away = True
    with trio.fail_after(6):
        async with tree(*log.tree(buffer)) as system:
            await system.ref("publisher").tell(Publish(event(1)))
    assert len(buffer) == 1


async def test_buffered_events_outlive_a_crash(autojump_clock: MockClock) -> None:
    log, buffer = Log(), EventBuffer()
    log.away = True
    async with tree(*log.tree(buffer)) as system:
        publisher = system.ref("publisher")
        await publisher.tell(Publish(event(1)))
        await trio.sleep(1)
        with pytest.raises(ActorCrashed):
            await publisher.ask("poison")
        assert len(buffer) == 1
        log.away = False
        await publisher.tell(Publish(event(2)))
        await publisher.ask(Flush())
    assert log.ids == ids(1, 2)
