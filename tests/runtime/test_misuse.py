"""What an actor, a factory or a tree may get wrong, and what it costs."""

from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import Actor, ActorCrashed, Child, Later, Mailbox, Supervisor, SupervisorGaveUp
from tests.runtime.support import (
    Asking,
    Boom,
    Crash,
    Echo,
    Journal,
    Run,
    Scripted,
    ScriptedBatch,
    ask_all,
    child,
    open_system,
    tree,
)


async def test_a_factory_that_raises_is_a_start_failure(autojump_clock: MockClock) -> None:
    def factory() -> Scripted:
        raise Boom("no actor")

    with pytest.raises(SupervisorGaveUp) as gave_up:
        async with open_system(tree(Child("a", factory, mailbox=Mailbox(1)))):
            pass
    assert isinstance(gave_up.value.__cause__, Boom)


async def test_a_factory_that_returns_no_actor_is_a_start_failure(autojump_clock: MockClock) -> None:
    factory: Any = object
    with pytest.raises(SupervisorGaveUp) as gave_up:
        async with open_system(tree(Child("a", factory, mailbox=Mailbox(1)))):
            pass
    assert isinstance(gave_up.value.__cause__, TypeError)
    assert "returned object, not an Actor" in str(gave_up.value.__cause__)


async def test_a_factory_that_fails_later_is_a_failed_restart(autojump_clock: MockClock) -> None:
    journal = Journal()
    made: list[Scripted] = []

    def factory() -> Scripted:
        if len(made) == 1:
            made.append(made[0])
            raise Boom("just now")
        made.append(Scripted("a", journal))
        return made[-1]

    async with open_system(tree(Child("a", factory, mailbox=Mailbox(4))), journal) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(5)
        assert [exit.exit.kind for exit in journal.exits("a")] == ["crashed", "start_failed"]
        assert await system.ref("a").ask(Echo(1)) == 1


async def test_an_actor_need_not_call_the_base_class_constructor(autojump_clock: MockClock) -> None:
    class Bare(Actor[int]):
        def __init__(self, step: int) -> None:
            self.step = step

        async def handle(self, message: int) -> int:
            return message + self.step

    async with open_system(tree(Child("a", partial(Bare, 2), mailbox=Mailbox(1)))) as system:
        assert await system.ref("a").ask(40) == 42


async def test_an_actor_without_a_handler_crashes_and_names_the_message(autojump_clock: MockClock) -> None:
    async with open_system(tree(Child("a", Actor, mailbox=Mailbox(1)))) as system:
        with pytest.raises(ActorCrashed, match="no handler for int"):
            await system.ref("a").ask(1)


async def test_a_later_answered_twice_crashes_the_actor_and_keeps_the_first_answer(autojump_clock: MockClock) -> None:
    journal = Journal()

    async def twice(actor: Scripted) -> Later:
        later = actor.later()

        async def answer() -> None:
            later.answer("first")
            later.answer("second")

        actor.spawn(answer)
        return later

    async with open_system(tree(child("a", journal)), journal) as system:
        assert await system.ref("a").ask(Run(twice)) == "first"
        await wait_all_tasks_blocked()
        assert isinstance(journal.exits("a")[0].exit.error, RuntimeError)


@pytest.mark.parametrize("on_crash", ["fail", "retry_once"])
async def test_a_later_returned_for_two_messages_is_a_crash_of_both(on_crash: str, autojump_clock: MockClock) -> None:
    class OneForAll(ScriptedBatch):
        batches = 0

        async def handle_batch(self, messages: list[Any]) -> list[Any]:
            self.journal.note(f"batch of {len(messages)}")
            if len(messages) == 1:
                return [message.value for message in messages]
            return [self.later()] * len(messages)

    journal = Journal()
    async with open_system(tree(child("a", journal, OneForAll, on_crash=on_crash))) as system:
        results = await ask_all(system, "a", [Echo(1), Echo(2)])
        if on_crash == "fail":
            assert [type(result.__cause__) for result in results] == [RuntimeError, RuntimeError]
        else:
            assert results == [1, 2]  # each given again, alone, and once
            assert journal.order("batch") == ["batch of 2", "batch of 1", "batch of 1"]


async def test_a_group_of_exceptions_counts_as_its_first(autojump_clock: MockClock) -> None:
    async def group(_actor: Scripted) -> None:
        async def fail() -> None:
            await trio.sleep(1)
            raise Boom("deep")

        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            outer.start_soon(trio.sleep_forever)
            inner.start_soon(fail)

    async with open_system(tree(child("a", Journal()))) as system:
        with pytest.raises(ActorCrashed) as crashed:
            await system.ref("a").ask(Run(group))
        assert isinstance(crashed.value.__cause__, Boom)


async def test_a_task_that_fails_while_it_is_cancelled_is_reported_and_stops_nothing(autojump_clock: MockClock) -> None:
    async def spawn_bad_loser(actor: Scripted) -> None:
        async def bad_loser() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise Boom("instead of Cancelled")

        actor.spawn(bad_loser)

    journal = Journal()
    async with open_system(tree(child("a", journal)), journal) as system:
        await system.ref("a").ask(Run(spawn_bad_loser))
    assert journal.order("gone") == ["gone a"]
    assert isinstance(journal.exits("a")[0].exit.error, Boom)


async def test_spawning_in_on_stop_is_reported(autojump_clock: MockClock) -> None:
    async def spawn(actor: Scripted) -> None:
        actor.spawn(trio.sleep_forever)

    journal = Journal()
    async with open_system(tree(child("a", journal, stopping=spawn)), journal):
        pass
    assert [type(event).__name__ for event in journal.events] == ["ActorReady", "StopFailed"]


@pytest.mark.usefixtures("schedule")
async def test_a_stop_called_in_on_start_or_on_stop_is_a_normal_end(autojump_clock: MockClock) -> None:
    async def stop(actor: Scripted) -> None:
        actor.stop()

    journal = Journal()
    root = tree(child("a", journal, starting=stop, stopping=stop, restart="transient"))
    async with open_system(root, journal) as system, trio.open_nursery() as nursery:
        ask = Asking(system, "a", Echo(), nursery)
        await wait_all_tasks_blocked()
        assert type(ask.error).__name__ == "ActorStopped"
    assert [exit.exit.kind for exit in journal.exits("a")] == ["normal"]


async def test_an_unknown_id_names_those_there_are(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()), child("b", Journal()))) as system:
        with pytest.raises(LookupError, match=r"no actor 'c' in the tree; there are: a, b"):
            system.ref("c")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: Mailbox(0), "at least 1"),
        (lambda: Mailbox(1, "explode"), "on_full must be one of"),  # type: ignore[arg-type]
        (lambda: child("a", None, restart="sometimes"), "restart must be one of"),  # type: ignore[arg-type]
        (lambda: child("a", None, on_crash="panic"), "on_crash must be one of"),  # type: ignore[arg-type]
        (lambda: child("a", None, shutdown=0.0), "above 0"),  # type: ignore[arg-type]
        (lambda: Supervisor("s", strategy="none_for_all"), "strategy must be one of"),  # type: ignore[arg-type]
        (lambda: Supervisor("s", intensity=-1), "intensity"),
    ],
)
def test_a_wrong_declaration_is_refused_where_it_is_written(wrong: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        wrong()


async def test_a_tree_that_cannot_work_is_refused_before_anything_runs(autojump_clock: MockClock) -> None:
    journal = Journal()
    with pytest.raises(ValueError, match="two nodes of the tree are called 'a'"):
        async with open_system(tree(child("a", journal), tree(child("a", journal), id="inner"))):
            pass
    with pytest.raises(ValueError, match="above the system's shutdown_deadline"):
        async with open_system(tree(child("a", journal, shutdown=9.0)), shutdown_deadline=5.0):
            pass
    assert journal.entries == []
