"""A tree starts in order, each child ready before the next begins, and stops in reverse within its budgets."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import ActorStopped, AskCycle, Ref, StartTimeout, StopFailed, SupervisorGaveUp
from tests.runtime.support import (
    EPSILON,
    Asking,
    Boom,
    Crash,
    Echo,
    Hold,
    Journal,
    Scripted,
    ask_all,
    child,
    open_system,
    state_of,
    tree,
)


async def take_a_second(_actor: Scripted) -> None:
    await trio.sleep(1)


async def for_ever(_actor: Scripted) -> None:
    await trio.sleep_forever()


@pytest.mark.usefixtures("schedule")
async def test_each_child_is_ready_before_the_next_starts_and_the_body_after_all(autojump_clock: MockClock) -> None:
    journal = Journal()
    inner = tree(child("b", journal, starting=take_a_second), child("c", journal), id="inner")
    root = tree(child("a", journal, starting=take_a_second), inner, child("d", journal))
    async with open_system(root):
        journal.note("body")
    up = ["start a", "ready a", "start b", "ready b", "start c", "ready c", "start d", "ready d", "body"]
    down = ["stop d", "gone d", "stop c", "gone c", "stop b", "gone b", "stop a", "gone a"]
    assert journal.order() == up + down


async def test_refs_are_valid_before_the_start(autojump_clock: MockClock) -> None:
    """What on_start tells a later sibling waits in its mailbox."""
    journal = Journal()

    async def tell_next(actor: Scripted) -> None:
        await actor.lookup("b").tell(Echo("early"))

    async with open_system(tree(child("a", journal, starting=tell_next), child("b", journal))):
        await wait_all_tasks_blocked()
        assert [message.value for message in journal.handled] == ["early"]


async def test_an_ask_before_the_start_is_answered_after_it(autojump_clock: MockClock) -> None:
    answers: list[int] = []

    async def ask_b(actor: Scripted) -> None:
        answers.append(await actor.lookup("b").ask(Echo(1)))

    async def ask_from_a_task(actor: Scripted) -> None:
        actor.spawn(ask_b, actor)
        await trio.sleep(1)

    async with open_system(tree(child("a", Journal(), starting=ask_from_a_task), child("b", Journal()))):
        await wait_all_tasks_blocked()
        assert answers == [1]


async def test_a_start_failure_stops_what_was_started_and_is_raised_bare(autojump_clock: MockClock) -> None:
    error = Boom("no")

    async def fail(_actor: Scripted) -> None:
        raise error

    journal = Journal()
    root = tree(child("a", journal), child("b", journal, starting=fail), child("c", journal))
    with pytest.raises(SupervisorGaveUp) as gave_up:
        async with open_system(root):
            pytest.fail("the body must not run")
    assert str(gave_up.value) == "supervisor root gave up: b failed to start: Boom: no"
    assert gave_up.value.__cause__ is error
    assert journal.order() == ["start a", "ready a", "start b", "stop a", "gone a"]


@pytest.mark.parametrize(("needs", "starts"), [(2.0 - EPSILON, True), (2.0 + EPSILON, False)])
async def test_a_start_has_a_timeout(needs: float, starts: bool, autojump_clock: MockClock) -> None:
    async def starting(_actor: Scripted) -> None:
        await trio.sleep(needs)

    root = tree(child("a", Journal(), starting=starting, start_timeout=2.0))
    began = trio.current_time()
    if starts:
        async with open_system(root):
            pass
    else:
        with pytest.raises(SupervisorGaveUp) as gave_up:
            async with open_system(root):
                pass
        assert isinstance(gave_up.value.__cause__, StartTimeout)
        assert trio.current_time() - began == 2.0


async def test_an_on_start_that_asks_itself_fails_at_once(autojump_clock: MockClock) -> None:
    async def ask_self(actor: Scripted) -> None:
        await actor.ref.ask(Echo())

    with pytest.raises(SupervisorGaveUp) as gave_up:
        async with open_system(tree(child("a", Journal(), starting=ask_self))):
            pass
    assert isinstance(gave_up.value.__cause__, AskCycle)
    assert trio.current_time() == 0


async def test_a_stop_handles_what_is_queued_first(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with trio.open_nursery() as nursery:
        async with open_system(tree(child("a", journal))) as system:
            asks = [Asking(system, "a", Echo(n, after=0.5), nursery) for n in range(4)]
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert [ask.value for ask in asks] == [0, 1, 2, 3]
        assert journal.times("stop a") == [2.0]


async def test_nothing_is_accepted_any_more_while_draining(autojump_clock: MockClock) -> None:
    async def ask_late(ref: Ref[Any]) -> None:
        await trio.sleep(1)
        with pytest.raises(ActorStopped):
            await ref.ask(Echo())
        assert ref.try_tell(Echo()) is False

    journal = Journal()
    async with trio.open_nursery() as outlives_it, open_system(tree(child("a", journal))) as system:
        await system.ref("a").tell(Echo(after=3))
        await wait_all_tasks_blocked()
        outlives_it.start_soon(ask_late, system.ref("a"))
    assert journal.times("stop a") == [3.0]


@pytest.mark.usefixtures("schedule")
async def test_a_crash_while_draining_answers_all_the_rest(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        async with open_system(tree(child("a", Journal()))) as system:
            hold = Hold()
            await system.ref("a").tell(hold)
            await wait_all_tasks_blocked()
            crash = Asking(system, "a", Crash(), nursery)
            await wait_all_tasks_blocked()
            rest = [Asking(system, "a", Echo(n), nursery) for n in range(3)]
            await wait_all_tasks_blocked()
            hold.released.set()
        await wait_all_tasks_blocked()
        assert crash.ended
        assert all(ask.ended for ask in rest)


@pytest.mark.usefixtures("schedule")
async def test_a_failing_on_stop_is_reported_and_changes_nothing(autojump_clock: MockClock) -> None:
    error = Boom("in on_stop")

    async def fail(_actor: Scripted) -> None:
        raise error

    journal = Journal()
    async with open_system(tree(child("a", journal, stopping=fail)), journal) as system:
        await system.ref("a").tell(Crash())
        await wait_all_tasks_blocked()
        assert await system.ref("a").ask(Echo(1)) == 1
    assert [event for event in journal.events if isinstance(event, StopFailed)] == [StopFailed("a", error)] * 2


async def test_a_stop_during_a_start_cancels_it_and_skips_its_on_stop(autojump_clock: MockClock) -> None:
    journal = Journal()
    root = tree(child("a", journal), child("b", journal, starting=for_ever, start_timeout=60.0))
    with trio.move_on_after(10) as scope:
        async with open_system(root):
            pytest.fail("the body must not run")
    assert scope.cancelled_caught
    assert journal.entries == [
        (0.0, "start a"),
        (0.0, "ready a"),
        (0.0, "start b"),
        (10.0, "stop a"),
        (10.0, "gone a"),
    ]


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("at", [0.0, 1.0, 2.0, 3.0, 3.5, 4.0])
async def test_a_stop_at_any_moment_of_a_restart_ends_in_order(at: float, autojump_clock: MockClock) -> None:
    """During on_stop, in backoff, during the start, and at the instants between."""
    journal = Journal()

    async def slow_stop(_actor: Scripted) -> None:
        await trio.sleep(1)

    async def slow_start(_actor: Scripted) -> None:
        if len(journal.times("start b")) > 1:
            await trio.sleep(1)

    root = tree(
        child("a", journal),
        child("b", journal, stopping=slow_stop, starting=slow_start, on_crash="retry_once"),
        child("c", journal),
        strategy="rest_for_one",
        intensity=None,
    )
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as nursery:
        async with open_system(root) as system:
            for _ in range(2):
                await system.ref("b").tell(Crash())
            asks = [Asking(system, "b", Echo(n), nursery) for n in range(3)]
            await trio.sleep(at)
        await wait_all_tasks_blocked()
        assert all(ask.ended for ask in asks)
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    for id in "abc":
        assert journal.order(f"stop {id}") == ["stop " + id] * len(journal.times(f"ready {id}"))
    assert journal.order("stop")[-1] == "stop a"


async def test_a_cancelled_body_stops_the_tree_in_order(autojump_clock: MockClock) -> None:
    journal = Journal()
    root = tree(*(child(id, journal, stopping=take_a_second) for id in "abc"))
    with trio.move_on_after(2) as scope:
        async with open_system(root):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert journal.entries[6:] == [
        (2.0, "stop c"),
        (3.0, "gone c"),
        (3.0, "stop b"),
        (4.0, "gone b"),
        (4.0, "stop a"),
        (5.0, "gone a"),
    ]


async def test_the_states_of_a_child_from_start_to_stop(autojump_clock: MockClock) -> None:
    root = tree(child("a", Journal(), stopping=take_a_second), child("b", Journal()))
    async with open_system(root) as system:
        assert state_of(system, "a")["state"] == "ready"
        assert await ask_all(system, "a", [Echo(1)]) == [1]
    assert [state_of(system, id)["state"] for id in ("root", "a", "b")] == ["stopped"] * 3
