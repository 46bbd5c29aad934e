"""The publisher with a spool: the log away, a stop, a crash, a full disk, and the order through all of it."""

from pathlib import Path
from typing import Any

import pytest
import trio
from actor_helpers import counts, tree
from test_publisher import Log, event, ids
from trio.testing import MockClock

from actors.metrics import Gauge, Metrics
from actors.publisher.buffer import EventBuffer
from actors.publisher.messages import Flush, Publish
from actors.runtime import ActorCrashed
from backends.spool.spool import Spool


class Rig:
    def __init__(self, folder: Path, capacity: int = 1 << 20, **options: Any) -> None:
        self.log, self.metrics, self.buffer = Log(), Metrics(), EventBuffer(on_full="refuse")
        self.spool = Spool(folder, capacity)
        self.options = {"spool": self.spool, "stop_timeout": 1.0, **options}

    def tree(self) -> Any:
        return tree(*self.log.tree(self.buffer, self.metrics, **self.options))

    def gauge(self, name: str) -> float:
        (family,) = (f for f in self.metrics.families() if f.name == name and isinstance(f, Gauge))
        return family.collect()[()]


async def publish(system: Any, *numbers: int) -> None:
    for number in numbers:
        await system.ref("publisher").tell(Publish(event(number)))


async def test_events_reach_the_log_in_order_and_leave_the_spool(tmp_path: Path, autojump_clock: MockClock) -> None:
    rig = Rig(tmp_path)
    async with rig.tree() as system:
        await publish(system, *range(10))
        await system.ref("publisher").ask(Flush())
        assert rig.log.ids == ids(*range(10))
        assert rig.spool.events == 0


async def test_a_log_that_is_away_finds_all_of_it_in_order(tmp_path: Path, autojump_clock: MockClock) -> None:
    rig = Rig(tmp_path)
    rig.log.away = True
    async with rig.tree() as system:
        for number in range(50):
            await publish(system, number)
            await trio.sleep(0.05)
        assert rig.spool.events == 50
        assert len(rig.buffer) == 0
        assert rig.gauge("weir_spool_events") == 50
        assert rig.gauge("weir_spool_bytes") == rig.spool.size > 50
        rig.log.away = False
        await publish(system, 50)
        await system.ref("publisher").ask(Flush())
        assert rig.log.ids == ids(*range(51))


async def test_within_the_linger_an_event_is_on_disk_though_the_log_hangs(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    rig = Rig(tmp_path)
    rig.log.hang = True
    async with rig.tree() as system:
        await publish(system, 1)
        await trio.sleep(0.1)
        await publish(system, 2)
        await trio.sleep(0.03)
        killed = Spool(tmp_path, 1 << 20)  # what another process would find now
        assert killed.events == 2


async def test_what_an_earlier_process_left_comes_first(tmp_path: Path, autojump_clock: MockClock) -> None:
    before = Rig(tmp_path)
    before.log.away = True
    async with before.tree() as system:
        await publish(system, 1, 2)
        await trio.sleep(1)
    before.spool.close()
    after = Rig(tmp_path)
    async with after.tree() as system:
        await publish(system, 3)
        await system.ref("publisher").ask(Flush())
    assert after.log.ids == ids(1, 2, 3)


async def test_a_stop_keeps_in_the_spool_what_the_log_does_not_take(tmp_path: Path, autojump_clock: MockClock) -> None:
    rig = Rig(tmp_path, linger=60.0)
    rig.log.away = True
    async with rig.tree() as system:
        await publish(system, 1, 2, 3)
    assert (len(rig.buffer), rig.spool.events) == (0, 3)


async def test_a_full_spool_shuts_the_buffer_until_there_is_room(tmp_path: Path, autojump_clock: MockClock) -> None:
    rig = Rig(tmp_path, capacity=1000)
    rig.log.away = True
    async with rig.tree() as system:
        publisher = system.ref("publisher")
        number = 0
        while await publisher.ask(Publish(event(number))):
            number += 1
            await trio.sleep(0.05)
        assert rig.buffer.refusing
        assert counts(rig.metrics, "weir_audit_dropped_total") == {("full",): 1}
        rig.log.away = False
        await trio.sleep(20)
        assert not rig.buffer.refusing
        assert rig.log.ids == ids(*range(number))
        assert await publisher.ask(Publish(event(number)))


async def test_a_crash_repeats_what_was_under_way_and_loses_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    rig = Rig(tmp_path)
    rig.log.away = True
    async with rig.tree() as system:
        await publish(system, 1)
        await trio.sleep(1)
        with pytest.raises(ActorCrashed):
            await system.ref("publisher").ask("poison")
        rig.log.away = False
        await publish(system, 2)
        await system.ref("publisher").ask(Flush())
    assert rig.log.ids == ids(1, 2)


async def test_an_event_that_the_log_refuses_for_good_holds_up_no_other(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    rig = Rig(tmp_path)
    answer = rig.log.answer

    async def refusing(message: Any) -> Any:
        if any(dict(record.headers)["ce_id"] == b"id-2" for record in message.records):
            raise ValueError("too large")
        return await answer(message)

    rig.log.answer = refusing  # type: ignore[method-assign]
    async with rig.tree() as system:
        await publish(system, 1, 2, 3)
        await system.ref("publisher").ask(Flush())
    assert rig.log.ids == ids(1, 3)
    assert counts(rig.metrics, "weir_audit_dropped_total") == {("invalid",): 1}


async def test_what_waits_is_synced_to_the_disk(tmp_path: Path, autojump_clock: MockClock) -> None:
    rig = Rig(tmp_path)
    rig.log.away = True
    syncs: list[int] = []

    async def sync() -> None:
        await trio.lowlevel.checkpoint()
        syncs.append(rig.spool.events)

    rig.spool.sync = sync  # type: ignore[method-assign]
    rig.spool.age = lambda: 5.0 if rig.spool.events else 0.0  # type: ignore[method-assign]
    async with rig.tree() as system:
        await trio.sleep(5)
        assert syncs == []
        await publish(system, 1)
        await trio.sleep(2.5)
        assert syncs == [1, 1]
