"""An ask that could only wait for the handler that makes it fails at once, and no other does."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import AskCycle, Later, Mailbox, MailboxFull
from tests.runtime.support import AnswerLater, Asking, Echo, Journal, Run, Scripted, child, open_system, tree


def ask(target: str, message: Any) -> Run:
    """A message whose handler asks *target*."""

    async def fn(actor: Scripted) -> Any:
        return await actor.lookup(target).ask(message)

    return Run(fn)


def caught(fn: Callable[[Scripted], Awaitable[Any]]) -> Run:
    """A message whose handler answers the cycle it met."""

    async def guarded(actor: Scripted) -> Any:
        try:
            return await fn(actor)
        except AskCycle as error:
            return error.cycle

    return Run(guarded)


def trio_of_actors(journal: Journal) -> Any:
    return tree(*(child(id, journal) for id in "abc"))


async def test_an_ask_to_oneself_fails_at_once(autojump_clock: MockClock) -> None:
    async def ask_self(actor: Scripted) -> Any:
        return await actor.ref.ask(Echo())

    async with open_system(trio_of_actors(Journal())) as system:
        assert await system.ref("a").ask(caught(ask_self)) == ["a", "a"]
        assert trio.current_time() == 0


@pytest.mark.parametrize("length", [2, 3])
@pytest.mark.usefixtures("schedule")
async def test_a_cycle_of_asks_fails_where_it_closes(length: int, autojump_clock: MockClock) -> None:
    ids = "abc"[:length]

    async def close(actor: Scripted) -> Any:
        return await actor.lookup("a").ask(Echo())

    message: Any = caught(close)
    for target in reversed(ids[1:]):
        message = ask(target, message)
    async with open_system(trio_of_actors(Journal())) as system:
        assert await system.ref("a").ask(message) == [ids[-1], *ids]
        assert trio.current_time() == 0
        assert [await system.ref(id).ask(Echo(id)) for id in ids] == list(ids)


@pytest.mark.usefixtures("schedule")
async def test_two_handlers_that_ask_each_other_never_hang(autojump_clock: MockClock) -> None:
    """No message of one is the other's cause: each just happens to be busy asking."""

    async def cross(actor: Scripted) -> Any:
        await trio.sleep(1)
        return await actor.lookup("b" if actor.id == "a" else "a").ask(Echo("answer"))

    async with open_system(trio_of_actors(Journal())) as system, trio.open_nursery() as nursery:
        asks = [Asking(system, id, caught(cross), nursery) for id in "ab"]
        await trio.sleep(2)
        first, second = sorted(asks, key=lambda ask: ask.value == "answer")
        assert set(first.value) == {"a", "b"}
        assert second.value == "answer"


async def test_an_uncaught_cycle_is_a_crash_like_any_other_error(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(trio_of_actors(journal), journal) as system, trio.open_nursery() as nursery:
        asking = Asking(system, "a", ask("a", Echo()), nursery)
        await wait_all_tasks_blocked()
        assert isinstance(asking.error.__cause__ if asking.error else None, AskCycle)


async def test_an_ask_from_a_task_of_a_nursery_in_the_handler_counts(autojump_clock: MockClock) -> None:
    async def ask_in_parallel(actor: Scripted) -> Any:
        cycles: list[list[str]] = []

        async def one() -> None:
            try:
                await actor.ref.ask(Echo())
            except AskCycle as error:
                cycles.append(error.cycle)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)
        return cycles

    async with open_system(trio_of_actors(Journal())) as system:
        assert await system.ref("a").ask(Run(ask_in_parallel)) == [["a", "a"]] * 2


async def test_an_ask_from_a_spawned_task_holds_up_no_handler(autojump_clock: MockClock) -> None:
    async def ask_self_later(actor: Scripted) -> Later:
        later = actor.later()

        async def task() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(inner)

        async def inner() -> None:
            later.answer(await actor.ref.ask(Echo("from myself")))

        actor.spawn(task)
        return later

    async with open_system(trio_of_actors(Journal())) as system:
        assert await system.ref("a").ask(Run(ask_self_later)) == "from myself"
        assert await system.ref("b").ask(ask("a", Run(ask_self_later))) == "from myself"


async def test_a_task_handed_to_somebody_elses_nursery_holds_up_no_handler(autojump_clock: MockClock) -> None:
    """It has the context of the handler, and is none of its tasks."""
    async with open_system(trio_of_actors(Journal())) as system, trio.open_nursery() as outside:
        answers: list[Any] = []

        async def ask_self(actor: Scripted) -> None:
            answers.append(await actor.ref.ask(Echo("outside")))

        async def hand_over(actor: Scripted) -> None:
            outside.start_soon(ask_self, actor)
            await trio.sleep(1)

        await system.ref("a").ask(Run(hand_over))
        await wait_all_tasks_blocked()
        assert answers == ["outside"]


@pytest.mark.usefixtures("schedule")
async def test_whoever_waits_for_an_answer_given_later_may_be_asked(autojump_clock: MockClock) -> None:
    """b waits for a's Later, so a's handler is free: a may ask b, which gets its answer first."""
    async with open_system(trio_of_actors(Journal())) as system, trio.open_nursery() as nursery:
        waits = Asking(system, "b", ask("a", AnswerLater("later", after=2)), nursery)
        await trio.sleep(1)
        asks = Asking(system, "a", ask("b", Echo("hello")), nursery)
        await trio.sleep(2)
        assert (waits.value, waits.at) == ("later", 2)
        assert (asks.value, asks.at) == ("hello", 1)


@pytest.mark.usefixtures("schedule")
async def test_asks_back_and_forth_one_after_the_other_are_no_cycle(autojump_clock: MockClock) -> None:
    async def ping(actor: Scripted) -> Any:
        return [await actor.lookup("b").ask(Echo(n)) for n in range(20)]

    async def pong(actor: Scripted) -> Any:
        await trio.lowlevel.checkpoint()
        actor.lookup("a").try_tell(Echo())
        return None

    async with open_system(trio_of_actors(Journal())) as system:
        for _ in range(5):
            assert await system.ref("a").ask(Run(ping)) == list(range(20))
            await system.ref("b").ask(Run(pong))
            assert await system.ref("b").ask(ask("a", Echo("other way"))) == "other way"


@pytest.mark.parametrize("through", ["itself", "another"])
async def test_a_tell_that_could_only_wait_for_its_own_handler_finds_the_mailbox_full(
    through: str, autojump_clock: MockClock
) -> None:
    async def fill(actor: Scripted) -> Any:
        told = 0
        try:
            while True:
                await actor.lookup("a").tell(Echo())
                told += 1
        except MailboxFull:
            return told

    root = tree(child("a", Journal(), mailbox=Mailbox(2, "wait")), child("b", Journal()))
    async with open_system(root) as system:
        message = Run(fill) if through == "itself" else ask("b", Run(fill))
        assert await system.ref("a").ask(message) == 2
        assert trio.current_time() == 0


async def test_a_tell_from_a_spawned_task_waits_for_room(autojump_clock: MockClock) -> None:
    journal = Journal()

    async def fill(actor: Scripted) -> None:
        async def tell() -> None:
            for n in range(5):
                await actor.ref.tell(Echo(n))

        actor.spawn(tell)

    async with open_system(tree(child("a", journal, mailbox=Mailbox(1, "wait")))) as system:
        await system.ref("a").ask(Run(fill))
        await wait_all_tasks_blocked()
        assert [message.value for message in journal.handled[1:]] == [0, 1, 2, 3, 4]
