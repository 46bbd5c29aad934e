"""Fault plans: when a fault strikes, what it does, and what the runtime makes of it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio

from actors.runtime import (
    Actor,
    ActorCrashed,
    AskTimeout,
    Backoff,
    Child,
    Mailbox,
    ShutdownOverrun,
    StartTimeout,
    StopFailed,
    Supervisor,
    SupervisorGaveUp,
)
from actors.runtime.testing import Fault, Hang, InjectedFault, OpenSystem, Raise, RunningSystem, Slow, with_faults

Record = list[Any]


class Recorder(Actor[Any]):
    def __init__(self, record: Record) -> None:
        self.record = record

    async def on_start(self) -> None:
        self.record.append("start")

    async def handle(self, message: Any) -> Any:
        self.record.append(message)
        return message

    async def on_stop(self) -> None:
        self.record.append("stop")


class BatchRecorder(Recorder):
    async def handle_batch(self, messages: list[Any]) -> list[Any]:
        self.record.append(messages)
        return messages


def faulty(record: Record, *plan: Fault, actor: Callable[[Record], Recorder] = Recorder, **options: Any) -> Child:
    factory = with_faults(partial(actor, record), *plan)
    return Child("a", factory, **{"mailbox": Mailbox(16), "backoff": Backoff(jitter=0.0), **options})


def kinds(system: RunningSystem) -> list[str]:
    return [exit.exit.kind for exit in system.exits("a")]


async def test_without_a_plan_nothing_is_different(actor_system: OpenSystem) -> None:
    record: Record = []
    async with actor_system(faulty(record)) as system:
        assert await system.ref("a").ask(1) == 1
    assert record == ["start", 1, "stop"]


async def test_a_crash_on_the_nth_message_is_counted_over_all_lives(actor_system: OpenSystem) -> None:
    record: Record = []
    async with actor_system(faulty(record, Fault("handle", message=2), Fault("handle", message=4))) as system:
        answers = []
        for n in range(1, 6):
            answers += await system.ask_all("a", n)
            await system.wait_until_ready("a")
        assert [type(answer) for answer in answers] == [int, ActorCrashed, int, ActorCrashed, int]
        assert isinstance(answers[1].__cause__, InjectedFault)
    assert [entry for entry in record if isinstance(entry, int)] == [1, 3, 5]


async def test_a_message_given_again_is_another_delivery(actor_system: OpenSystem) -> None:
    record: Record = []
    async with actor_system(faulty(record, Fault("handle", message=1), on_crash="retry_once")) as system:
        assert await system.ref("a").ask("x") == "x"
        assert kinds(system) == ["crashed"]


async def test_poison_crashes_whenever_it_is_given(actor_system: OpenSystem) -> None:
    poison = Fault("handle", when=lambda message: message == "poison")
    async with actor_system(faulty([], poison, on_crash="retry_once")) as system:
        answers = await system.ask_all("a", "x", "poison", "y")
        assert [type(answer) for answer in answers] == [str, ActorCrashed, str]
        assert kinds(system) == ["crashed", "crashed"]


async def test_a_crash_after_handling_leaves_the_work_done_and_nobody_told(actor_system: OpenSystem) -> None:
    record: Record = []
    async with actor_system(faulty(record, Fault("handle", message=1, after=True))) as system:
        with pytest.raises(ActorCrashed):
            await system.ref("a").ask("x")
    assert "x" in record


async def test_one_message_that_fits_strikes_its_whole_batch(actor_system: OpenSystem) -> None:
    record: Record = []
    plan = Fault("handle", message=2)
    async with actor_system(faulty(record, plan, actor=BatchRecorder, on_crash="retry_once")) as system:
        for message in "abc":
            assert system.ref("a").try_tell(message)
        assert await system.ref("a").ask("d") == "d"
        assert kinds(system) == ["crashed"]
    assert [entry for entry in record if isinstance(entry, list)] == [["a"], ["b"], ["c"], ["d"]]


async def test_a_first_start_that_fails_ends_the_system(actor_system: OpenSystem) -> None:
    with pytest.raises(SupervisorGaveUp) as gave_up:
        async with actor_system(faulty([], Fault("on_start", Raise(partial(OSError, "no disk")), incarnation=1))):
            pass
    assert str(gave_up.value.__cause__) == "no disk"


async def test_restarts_fail_until_one_works(actor_system: OpenSystem) -> None:
    async with actor_system(faulty([], Fault("on_start", incarnation=range(2, 4)))) as system:
        await system.crash("a")
        await system.wait_until_ready("a", incarnation=4)
        assert kinds(system) == ["crashed", "start_failed", "start_failed"]
        assert trio.current_time() == 0 + 0.5 + 1


async def test_a_start_that_hangs_runs_into_its_timeout(actor_system: OpenSystem) -> None:
    async with actor_system(faulty([], Fault("on_start", Hang(), incarnation=2), start_timeout=3.0)) as system:
        await system.crash("a")
        exit = await system.wait_for_exit("a", 2)
        assert isinstance(exit.exit.error, StartTimeout)
        assert trio.current_time() == 3


async def test_a_slow_start_only_takes_longer(actor_system: OpenSystem) -> None:
    async with actor_system(faulty([], Fault("on_start", Slow(4.0)))):
        assert trio.current_time() == 4


async def test_a_handler_that_hangs_keeps_its_asker_waiting(actor_system: OpenSystem) -> None:
    async with actor_system(faulty([], Fault("handle", Hang(), message=1))) as system:
        with pytest.raises(AskTimeout):
            await system.ref("a").ask(1, timeout=60)
        await system.crash("a")
        await system.wait_until_ready("a")
        assert await system.ref("a").ask(2) == 2


async def test_faults_at_one_point_happen_in_the_order_given(actor_system: OpenSystem) -> None:
    plan = (Fault("handle", Slow(2.0)), Fault("handle", Raise(ValueError)))
    async with actor_system(faulty([], *plan)) as system:
        with pytest.raises(ActorCrashed):
            await system.ref("a").ask(1)
        assert trio.current_time() == 2


async def test_a_stop_that_fails_is_reported(actor_system: OpenSystem) -> None:
    record: Record = []
    async with actor_system(faulty(record, Fault("on_stop", Raise(OSError), after=True))) as system:
        pass
    (failed,) = [event for event in system.events if isinstance(event, StopFailed)]
    assert isinstance(failed.error, OSError)
    assert record == ["start", "stop"]


async def test_a_stop_that_hangs_is_cut_off(actor_system: OpenSystem) -> None:
    async with actor_system(faulty([], Fault("on_stop", Hang()), shutdown=2.0)) as system:
        pass
    assert [type(event) for event in system.events][-1] is ShutdownOverrun
    assert trio.current_time() == 2


async def test_a_group_crashes_as_its_first_error(actor_system: OpenSystem) -> None:
    error = partial(ExceptionGroup, "two", [OSError("disk"), ValueError("value")])
    async with actor_system(faulty([], Fault("handle", Raise(error)))) as system:
        with pytest.raises(ActorCrashed):
            await system.ref("a").ask(1)
        assert str((await system.wait_for_exit("a")).exit.error) == "disk"


async def test_an_interrupt_ends_the_program_in_order(actor_system: OpenSystem) -> None:
    with pytest.raises(KeyboardInterrupt):
        async with actor_system(faulty([], Fault("handle", Raise(KeyboardInterrupt)))) as system:
            await system.ref("a").ask(1)


async def test_a_plan_is_a_value_and_each_use_counts_for_itself(actor_system: OpenSystem) -> None:
    plan = (Fault("handle", message=1),)
    assert hash(plan) == hash((Fault("handle", message=1),))
    for _ in range(2):
        async with actor_system(Supervisor("root", children=[faulty([], *plan)])) as system:
            with pytest.raises(ActorCrashed):
                await system.ref("a").ask(1)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Fault("handling"), "on_start, handle, on_stop; got 'handling'"),  # type: ignore[arg-type]
        (lambda: Fault("on_stop", message=1), "on_stop has no message"),
        (lambda: Fault("on_start", when=bool), "on_start has no message"),
        (lambda: Fault("handle", message=0), "counted from 1, got 0"),
        (lambda: Slow(0), "more than 0 seconds"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(make: Callable[[], Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()
