"""What looks after worker processes, in virtual time, with pretended processes; and how their numbers add up."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from actors.metrics import Metrics
from actors.runtime import Backoff, Child, Mailbox, Reject, Supervisor, SupervisorGaveUp, System, open_system
from gateway.admin.control import Phase
from gateway.admin.readiness import Readiness
from gateway.admin.readings import Reading, lasting, merged, read
from gateway.workers.actor import Leave, Reload, Replace, RollAll, Roller, Worker
from gateway.workers.control import readiness_of_all
from gateway.workers.fleet import Fleet
from gateway.workers.process import WorkerEnded


class FakeProcess:
    """Ready after *starting* seconds; ends *ending* seconds after SIGTERM."""

    def __init__(self, pid: int, *, starting: float = 1.0, ending: float = 1.0, fails: bool = False) -> None:
        self.pid = pid
        self.signals: list[int] = []
        self.readings = [Reading("counter", "done_total", "", (), [((), [1.0])])]
        self._starting, self._ending, self._fails = starting, ending, fails
        self._ends = trio.CancelScope()
        self._code: int | None = None
        self._gone = trio.Event()
        self._dies_at = float("inf")
        self._changed = trio.Event()

    async def until_ready(self) -> None:
        await trio.sleep(self._starting)
        if self._fails:
            self.die(1)
        if self._code is not None:
            raise WorkerEnded(0, self.pid, self._code)

    async def until_ended(self) -> int:
        while self._code is None:
            changed = self._changed
            with trio.move_on_at(self._dies_at):
                await changed.wait()
                continue
            self.die(0)
        return self._code

    def die(self, code: int) -> None:
        if self._code is None:
            self._code = code
            self._changed.set()

    def signal(self, number: int) -> None:
        if self._code is not None:
            return
        self.signals.append(number)
        if number == signal.SIGKILL:
            self.die(-9)
        elif number == signal.SIGTERM:
            self._dies_at = trio.current_time() + self._ending
            self._changed.set()
            self._changed = trio.Event()

    @property
    def runs(self) -> bool:
        return self._code is None


class Parent:
    def __init__(self, workers: int = 2, **options: float) -> None:
        self.fleet = Fleet(workers)
        self.launched: list[FakeProcess] = []
        self.options: dict[str, float] = options
        self.fail = False
        self.system: System

    def launch(self, _number: int) -> FakeProcess:
        process = FakeProcess(100 + len(self.launched), fails=self.fail, **self.options)
        self.launched.append(process)
        return process

    @property
    def running(self) -> list[int]:
        return [process.pid for process in self.launched if process.runs]

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["Parent"]:
        ids = [f"worker:{number}" for number in range(1, self.fleet.workers + 1)]
        box, backoff = Mailbox(16), Backoff(max=2.0)
        tree = Supervisor("root", intensity=10, period=60.0, children=[
            *(Child(id, lambda n=n: Worker(n, self.launch, self.fleet, drain=10.0, stop=5.0), mailbox=box,
                    start_timeout=60.0, shutdown=12.0, backoff=backoff) for n, id in enumerate(ids, 1)),
            Child("roll", lambda: Roller(ids), mailbox=box, backoff=backoff),
        ])  # fmt: skip
        async with open_system(tree) as self.system:
            yield self


async def test_a_worker_is_ready_when_its_process_is_and_its_end_is_told_by_sigterm(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with Parent().opened() as parent:
        assert trio.current_time() >= 2.0
        assert parent.running == [100, 101]
    assert [process.signals for process in parent.launched] == [[signal.SIGTERM]] * 2
    assert parent.fleet.alive == ()


async def test_a_process_that_does_not_end_in_time_is_killed(autojump_clock: trio.testing.MockClock) -> None:
    async with Parent(1, ending=1000.0).opened() as parent:
        began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(5.0, abs=0.5)
    assert parent.launched[0].signals == [signal.SIGTERM, signal.SIGKILL]


async def test_a_process_that_dies_is_followed_by_another_and_its_sibling_stays(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with Parent().opened() as parent:
        parent.launched[0].die(-9)
        await trio.sleep(2)
        assert parent.running == [101, 102]
        assert parent.fleet.current[1] is parent.launched[2]
        node = parent.system.snapshot()["children"][0]
        assert (node["restarts"], node["detail"]) == (1, {"pid": 102})
        assert "worker 1 (process 100) was killed by SIGKILL" in node["last_error"]


async def test_a_worker_that_dies_again_and_again_comes_back_ever_later_until_the_parent_gives_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    parent = Parent()

    async def in_trouble() -> None:
        async with parent.opened():
            parent.fail = True
            parent.launched[0].die(1)
            await trio.sleep(60)

    with pytest.raises(SupervisorGaveUp, match="worker:1 failed once too often"):
        await in_trouble()
    assert len(parent.launched) == 2 + 10
    assert parent.running == []


async def test_a_first_start_that_fails_ends_the_parent_with_the_reason(autojump_clock: trio.testing.MockClock) -> None:
    parent = Parent()
    parent.fail = True
    with pytest.raises(SupervisorGaveUp) as caught:
        await parent.opened().__aenter__()
    assert isinstance(caught.value.__cause__, WorkerEnded)
    assert parent.running == []


async def test_rolled_each_new_process_is_ready_before_the_old_one_is_told_to_go(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with Parent().opened() as parent:
        first, second = parent.launched
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parent.system.ref("roll").ask, RollAll())
            await trio.sleep(0.9)
            assert (len(parent.launched), first.signals) == (3, [])
            await trio.sleep(0.5)
            assert (first.signals, first.runs, second.signals) == ([signal.SIGTERM], True, [])
        assert parent.running == [102, 103]
        assert parent.system.snapshot()["children"][0]["restarts"] == 0


async def test_one_that_cannot_be_replaced_stays_and_ends_the_roll(autojump_clock: trio.testing.MockClock) -> None:
    async with Parent().opened() as parent:
        parent.fail = True
        with pytest.raises(Reject, match=r"worker:1 was not replaced: worker 0 .* ended with code 1"):
            await parent.system.ref("roll").ask(RollAll())
        assert parent.running == [100, 101]


async def test_the_old_process_dies_while_the_new_one_starts(autojump_clock: trio.testing.MockClock) -> None:
    async with Parent(1).opened() as parent:
        async with trio.open_nursery() as nursery:

            async def replace() -> None:
                with pytest.raises(Exception, match="crashed"):
                    await parent.system.ref("worker:1").ask(Replace())

            nursery.start_soon(replace)
            await trio.sleep(0.5)
            parent.launched[0].die(-9)
        await trio.sleep(3)
        assert parent.running == [102]


async def test_told_to_leave_it_is_gone_and_no_crash(autojump_clock: trio.testing.MockClock) -> None:
    async with Parent().opened() as parent:
        await parent.system.ref("worker:1").ask(Leave(5.0))
        await trio.sleep(5)
        assert parent.running == [101]
        assert parent.system.snapshot()["children"][0]["restarts"] == 0


async def test_a_reload_is_a_signal(autojump_clock: trio.testing.MockClock) -> None:
    async with Parent().opened() as parent:
        await parent.system.ref("worker:2").ask(Reload())
        assert [process.signals for process in parent.launched] == [[], [signal.SIGHUP]]


async def test_what_a_process_counted_stays_when_it_is_gone(autojump_clock: trio.testing.MockClock) -> None:
    async with Parent().opened() as parent:
        parent.launched[0].die(-9)
        await trio.sleep(2)
        assert [reading.rows for reading in parent.fleet.gone] == [[((), [1.0])]]


def test_counters_and_histograms_are_added_and_gauges_as_they_say() -> None:
    def process(n: float) -> list[Reading]:
        metrics = Metrics()
        metrics.counter("requests_total", "", ("status",)).inc("200", by=n)
        metrics.counter("only_total", "", ("process",)).inc(str(n))
        metrics.gauge("entries", "", (), lambda: {(): n})
        metrics.gauge("lag", "", (), lambda: {(): n}, "max")
        metrics.gauge("up", "", (), lambda: {(): n}, "min")
        metrics.histogram("seconds", "", (1.0,)).observe(n)
        return read(metrics)

    found = {reading.name: dict(reading.rows) for reading in merged([process(1), process(3)])}
    assert found == {
        "requests_total": {("200",): [4.0]},
        "only_total": {("1",): [1.0], ("3",): [1.0]},
        "entries": {(): [4.0]},
        "lag": {(): [3.0]},
        "up": {(): [1.0]},
        "seconds": {(): [1.0, 1.0, 4.0]},
    }
    assert [reading.name for reading in lasting(process(1))] == ["requests_total", "only_total", "seconds"]


def test_a_family_that_changed_its_shape_between_two_versions_is_the_firsts() -> None:
    old = [Reading("histogram", "seconds", "", (), [((), [1.0, 0.0, 0.5])], (1.0,))]
    new = [Reading("histogram", "seconds", "", (), [((), [1.0, 0.0, 0.0, 0.5])], (1.0, 2.0))]
    assert merged([old, new]) == old


READY, DEGRADED, NOT = Readiness(True, False, ()), Readiness(True, True, ("r",)), Readiness(False, False, ("n",))


@pytest.mark.parametrize(
    ("answers", "state", "expected"),
    [
        ((READY, READY), "ready", (True, False, ())),
        ((READY, DEGRADED), "ready", (True, True, ("worker:2: r",))),
        ((READY, NOT), "ready", (True, True, ("worker:2: n",))),
        ((NOT, NOT), "ready", (False, False, ("worker:1: n", "worker:2: n"))),
        ((READY, None), "ready", (True, True, ("worker:2 is silent",))),
        ((READY, None), "backoff", (True, True, ("worker:2 is backoff",))),
        ((None, None), "ready", (False, False, ("worker:1 is silent", "worker:2 is silent"))),
    ],
)
def test_it_is_ready_while_one_worker_is_and_degraded_unless_all_are(answers, state, expected) -> None:
    ids = ("worker:1", "worker:2")
    nodes = {"worker:1": {"state": "ready", "last_error": None}, "worker:2": {"state": state, "last_error": None}}
    assert readiness_of_all(Phase(started=True), nodes, dict(zip(ids, answers, strict=True))) == expected


def test_it_is_not_ready_before_the_start_and_while_it_drains() -> None:
    assert readiness_of_all(Phase(), {}, {}).reasons == ("starting",)
    assert readiness_of_all(Phase(True, True), {}, {}).reasons == ("draining",)
