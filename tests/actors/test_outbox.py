"""The relay: from the outbox to the bus, in order, at least once, whatever is away."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio
from trio.testing import MockClock

from actors.metrics import Gauge, Metrics
from actors.outbox.actor import OutboxRelay, retry_delay
from actors.outbox.messages import Waiting
from actors.runtime import System
from backends.ports import outbox as port
from backends.ports.engine import EngineUnusable
from backends.ports.entities import StoreUnavailable
from backends.ports.events import NewRecord
from backends.ports.outbox import Backlog
from tests.actors.actor_helpers import Scripted, child, counts, tree
from tests.actors.memory_log import MemoryLog


class MemoryOutbox:
    """Rows in a list; one holder at a time."""

    def __init__(self) -> None:
        self.rows: list[port.Waiting] = []
        self.refused: list[tuple[int, str]] = []
        self.takes = 0
        self.fault: Exception | None = None
        self.lock = trio.Lock()
        self._news = trio.Event()

    def put(self, *values: bytes, topic: str = "t") -> None:
        for value in values:
            self.rows.append(port.Waiting(len(self.rows) + 1 + self.takes * 1000, NewRecord(topic, b"k", value)))
        self._news.set()

    @asynccontextmanager
    async def held(self) -> AsyncIterator["MemoryOutbox"]:
        if self.fault is not None:
            raise self.fault
        async with self.lock:
            yield self

    async def take(self, limit: int) -> list[port.Waiting]:
        await trio.lowlevel.checkpoint()
        self.takes += 1
        self._news = trio.Event()
        if self.fault is not None:
            raise self.fault
        return self.rows[:limit]

    async def forget(self, ids: Sequence[int]) -> None:
        await trio.lowlevel.checkpoint()
        self.rows = [row for row in self.rows if row.id not in ids]

    async def refuse(self, id: int, error: str) -> None:
        await self.forget([id])
        self.refused.append((id, error))

    async def backlog(self) -> Backlog:
        await trio.lowlevel.checkpoint()
        return Backlog(len(self.rows), 7.0 if self.rows else 0.0)

    async def wait(self, timeout: float) -> None:
        with trio.move_on_after(timeout):
            await self._news.wait()


@asynccontextmanager
async def relaying(outbox: MemoryOutbox, log: MemoryLog, metrics: Metrics) -> AsyncIterator[System]:
    async def told(message: object) -> None:
        """`event_log` takes note that somebody appended."""

    neighbour = child("event_log", partial(Scripted, told, []))
    async with tree(neighbour, child("outbox", partial(OutboxRelay, outbox, log, metrics, batch=2))) as system:
        yield system


def values(log: MemoryLog) -> list[bytes | None]:
    return [record.value for record in log.records.get(("t", 0), []) if record]


def gauge(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    (found,) = (family for family in metrics.families() if family.name == name)
    assert isinstance(found, Gauge)
    return dict(found.collect())


async def test_rows_go_in_order_and_durably_and_are_forgotten(autojump_clock: MockClock) -> None:
    outbox, log, metrics = MemoryOutbox(), MemoryLog(), Metrics()
    outbox.put(b"1", b"2", b"3")
    async with relaying(outbox, log, metrics):
        await trio.sleep(1)
        assert values(log) == [b"1", b"2", b"3"]
        assert log.appends == [(2, True), (1, True)]
        assert outbox.rows == []
        assert counts(metrics, "weir_outbox_relayed_total") == {("t",): 3}


async def test_a_commit_wakes_the_relay_at_once(autojump_clock: MockClock) -> None:
    outbox, log = MemoryOutbox(), MemoryLog()
    async with relaying(outbox, log, Metrics()):
        await trio.sleep(10)
        outbox.put(b"1")
        await trio.sleep(0.001)
        assert values(log) == [b"1"]


async def test_what_nobody_told_of_is_found_within_the_poll(autojump_clock: MockClock) -> None:
    outbox, log = MemoryOutbox(), MemoryLog()
    async with relaying(outbox, log, Metrics()):
        await trio.sleep(10)
        outbox.rows.append(port.Waiting(1, NewRecord("t", b"k", b"silent")))
        await trio.sleep(0.25)
        assert values(log) == [b"silent"]


async def test_while_the_bus_is_away_rows_stay_and_their_age_shows(autojump_clock: MockClock) -> None:
    outbox, log, metrics = MemoryOutbox(), MemoryLog(), Metrics()
    log.fault = StoreUnavailable("the bus is away")
    async with relaying(outbox, log, metrics) as system:
        outbox.put(b"1", b"2", b"3")
        await trio.sleep(60)
        assert len(outbox.rows) == 3
        assert await system.ref("outbox").ask(Waiting()) == Backlog(3, 7.0)
        assert gauge(metrics, "weir_outbox_rows") == {(): 3}
        assert gauge(metrics, "weir_outbox_age_seconds") == {(): 7}
        assert counts(metrics, "weir_outbox_failures_total")[("bus",)] < 150, "it waits between two tries"
        log.fault = None
        await trio.sleep(6)
        assert values(log) == [b"1", b"2", b"3"]
        assert gauge(metrics, "weir_outbox_rows") == {(): 0}


async def test_a_bus_that_hangs_is_asked_again(autojump_clock: MockClock) -> None:
    outbox, log = MemoryOutbox(), MemoryLog()
    append, hanging = log.append, trio.Event()

    async def hang_once(records: Sequence[NewRecord], *, durable: bool) -> list[tuple[int, int]]:
        if not hanging.is_set():
            hanging.set()
            await trio.sleep_forever()
        return await append(records, durable=durable)

    log.append = hang_once  # type: ignore[method-assign]
    outbox.put(b"1")
    async with relaying(outbox, log, Metrics()):
        await trio.sleep(12)
        assert values(log) == [b"1"]
        assert outbox.rows == []


async def test_a_record_that_the_bus_will_never_take_is_put_aside_and_the_others_go_on(
    autojump_clock: MockClock,
) -> None:
    outbox, log, metrics = MemoryOutbox(), MemoryLog(), Metrics()
    outbox.put(b"1", b"bad", b"3")
    async with relaying(outbox, log, metrics):
        await trio.sleep(1)
        assert values(log) == [b"1", b"3"]
        ((_, error),) = outbox.refused
        assert "too large" in error
        assert counts(metrics, "weir_outbox_refused_total") == {("t",): 1}


async def test_while_the_store_is_away_the_relay_tries_again(autojump_clock: MockClock) -> None:
    outbox, log, metrics = MemoryOutbox(), MemoryLog(), Metrics()
    outbox.put(b"1")
    outbox.fault = StoreUnavailable("the database is away")
    async with relaying(outbox, log, metrics):
        await trio.sleep(30)
        assert gauge(metrics, "weir_outbox_rows") == {}
        outbox.fault = None
        await trio.sleep(6)
        assert values(log) == [b"1"]


async def test_one_relay_works_and_the_other_takes_over_when_it_ends(autojump_clock: MockClock) -> None:
    outbox, first, second = MemoryOutbox(), MemoryLog(), MemoryLog()
    async with relaying(outbox, first, Metrics()) as one:
        await trio.sleep(0.1)
        async with relaying(outbox, second, Metrics()) as two:
            outbox.put(b"1")
            await trio.sleep(1)
            assert (values(first), values(second)) == ([b"1"], [])
            assert await two.ref("outbox").ask(Waiting()) is None
            one.crash("outbox")
            await one.ref("outbox").tell(Waiting())
            await trio.sleep(5)
            outbox.put(b"2")
            await trio.sleep(1)
            assert values(first) + values(second) == [b"1", b"2"]


async def test_one_that_does_not_reach_the_bus_gives_way_to_one_that_does(autojump_clock: MockClock) -> None:
    outbox, cut, whole = MemoryOutbox(), MemoryLog(), MemoryLog()
    async with relaying(outbox, cut, Metrics()):
        await trio.sleep(0.1)
        async with relaying(outbox, whole, Metrics()):
            cut.fault = StoreUnavailable("the way to the bus is cut")
            outbox.put(b"1", b"2", b"3")
            await trio.sleep(0.5)
            assert values(whole) == [b"1", b"2", b"3"]


async def test_a_right_that_is_missing_costs_no_event(autojump_clock: MockClock) -> None:
    outbox, log = MemoryOutbox(), MemoryLog()
    log.fault = EngineUnusable("no right to append to t")
    outbox.put(b"1", b"2")
    async with relaying(outbox, log, Metrics()):
        await trio.sleep(10)
        assert (len(outbox.rows), outbox.refused) == (2, [])
        log.fault = None
        await trio.sleep(6)
        assert values(log) == [b"1", b"2"]


def test_waits_grow_to_a_bound() -> None:
    assert [retry_delay(n) for n in (1, 2, 3, 4, 50)] == [0.1, 0.2, 0.4, 0.5, 0.5]
