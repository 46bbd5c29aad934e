"""`stop`, `drain` and `kill` end an actor for good: nobody restarts it, and everybody is told."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from actors.runtime import ActorCrashed, ActorStopped, AskCycle, Backoff, Killed, Later, Ref, ShutdownOverrun
from tests.runtime.support import (
    AnswerLater,
    Asking,
    Boom,
    Crash,
    Echo,
    Hold,
    Journal,
    Run,
    Scripted,
    ScriptedBatch,
    child,
    open_system,
    state_of,
    tree,
)

ENDINGS = ["stop", "drain", "kill"]


async def end(ref: Ref[Any], how: str) -> None:
    await getattr(ref, how)()


@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("how", ENDINGS)
async def test_an_ended_actor_is_not_restarted(how: str, restart: str, autojump_clock: MockClock) -> None:
    journal = Journal()
    root = tree(child("a", journal, restart=restart), child("b", journal), strategy="one_for_all")
    async with open_system(root, journal) as system:
        await end(system.ref("a"), how)
        assert journal.order()[4:] == ["stop a", "gone a"]
        assert state_of(system, "a")["state"] == "stopped"
        with pytest.raises(ActorStopped):
            await system.ref("a").ask(Echo())
        await system.ref("b").tell(Crash())
        await trio.sleep(5)  # not with its group either
        assert journal.times("start a") == [0]
        assert await system.ref("b").ask(Echo(1)) == 1
        assert [(exit.exit.kind, exit.next) for exit in journal.exits("a")] == [
            ("killed" if how == "kill" else "stopped", "end")
        ]
        await end(system.ref("a"), how)  # once more is no error, and no second end
        assert state_of(system, "a")["state_age"] == 5


@pytest.mark.parametrize("how", ENDINGS)
@pytest.mark.usefixtures("schedule")
async def test_what_becomes_of_what_is_in_hand_and_queued(how: str, autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system, trio.open_nursery() as nursery:
        in_hand = Asking(system, "a", Echo("in hand", after=2), nursery)
        await wait_all_tasks_blocked()
        queued = Asking(system, "a", Echo("queued", after=2), nursery)
        await trio.sleep(1)
        await end(system.ref("a"), how)
        await wait_all_tasks_blocked()
        match how:
            case "stop":
                assert (in_hand.value, in_hand.at) == ("in hand", 2)
                assert (type(queued.error), queued.at) == (ActorStopped, 2)
            case "drain":
                assert (in_hand.value, in_hand.at) == ("in hand", 2)
                assert (queued.value, queued.at) == ("queued", 4)
            case "kill":
                assert (type(in_hand.error), in_hand.at) == (ActorCrashed, 1)
                assert isinstance(in_hand.error.__cause__ if in_hand.error else None, Killed)
                assert (type(queued.error), queued.at) == (ActorStopped, 1)


@pytest.mark.parametrize("how", ENDINGS)
async def test_nothing_new_is_accepted_from_the_first_moment(how: str, autojump_clock: MockClock) -> None:
    async def slowly(_actor: Scripted) -> None:
        await trio.sleep(1)

    async with open_system(tree(child("a", Journal(), stopping=slowly))) as system, trio.open_nursery() as nursery:
        await system.ref("a").tell(Echo(after=1))
        await wait_all_tasks_blocked()
        nursery.start_soon(end, system.ref("a"), how)
        await wait_all_tasks_blocked()
        assert state_of(system, "a")["state"] == "stopping"
        assert not system.ref("a").try_tell(Echo())
        with pytest.raises(ActorStopped):
            await system.ref("a").ask(Echo())


async def test_told_leftovers_go_to_dead_letters(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        await system.ref("a").tell(Echo(after=1))
        await wait_all_tasks_blocked()
        await system.ref("a").tell(Echo())
        await system.ref("a").stop()
        assert system.dead_letters.counts == {("a", "stopped"): 1}


async def test_stop_waits_for_answers_given_later(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system, trio.open_nursery() as nursery:
        asking = Asking(system, "a", AnswerLater("later", after=2), nursery)
        await wait_all_tasks_blocked()
        await system.ref("a").stop()
        assert trio.current_time() == 2
        await wait_all_tasks_blocked()
        assert asking.value == "later"


@pytest.mark.parametrize("how", ["stop", "drain"])
async def test_it_takes_no_longer_than_the_shutdown_budget(how: str, autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal, shutdown=5.0)), journal) as system:
        await trio.sleep(10)
        await system.ref("a").tell(Hold())
        await wait_all_tasks_blocked()
        await end(system.ref("a"), how)
        assert trio.current_time() == 14  # 80 % of the budget; the rest is on_stop's
        assert ShutdownOverrun("a", "drain", 5.0) in journal.events


async def test_a_kill_overtakes_a_drain(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal)), journal) as system, trio.open_nursery() as nursery:
        await system.ref("a").tell(Hold())
        await wait_all_tasks_blocked()
        nursery.start_soon(system.ref("a").drain)
        await trio.sleep(1)
        await system.ref("a").kill()
        assert trio.current_time() == 1
        assert [exit.exit.kind for exit in journal.exits("a")] == ["killed"]
        assert not [event for event in journal.events if isinstance(event, ShutdownOverrun)]


@pytest.mark.parametrize("how", ENDINGS)
async def test_in_backoff_it_ends_at_once(how: str, autojump_clock: MockClock) -> None:
    journal = Journal()
    root = tree(child("a", journal, backoff=Backoff(first=9.0), on_crash="retry_once"))
    async with open_system(root, journal) as system, trio.open_nursery() as nursery:
        asking = Asking(system, "a", Crash(), nursery)
        await wait_all_tasks_blocked()
        await system.ref("a").tell(Echo())
        await end(system.ref("a"), how)
        await wait_all_tasks_blocked()
        assert isinstance(asking.error, ActorCrashed)
        assert (trio.current_time(), system.dead_letters.counts) == (0, {("a", "stopped"): 1})
        assert state_of(system, "a")["state"] == "stopped"
        with assert_checkpoints():
            await end(system.ref("a"), how)
        await trio.sleep(20)
        assert journal.times("start a") == [0]


@pytest.mark.parametrize("how", ENDINGS)
@pytest.mark.usefixtures("schedule")
async def test_a_crash_on_the_way_restarts_nothing(how: str, autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal)), journal) as system:
        await system.ref("a").tell(Crash(after=1))
        await wait_all_tasks_blocked()
        await end(system.ref("a"), how)
        await trio.sleep(5)
        assert journal.times("start a") == [0]
        assert [exit.next for exit in journal.exits("a")] == ["end"]


@pytest.mark.usefixtures("schedule")
async def test_an_end_in_the_very_moment_of_a_crash(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal)), journal) as system:
        await system.ref("a").tell(Crash(after=1))
        await trio.sleep(1)
        await system.ref("a").drain()
        await trio.sleep(5)
        assert state_of(system, "a")["state"] == "stopped"
        assert len(journal.exits("a")) in (1, 2)  # 2: it had been restarted by then


@pytest.mark.parametrize("how", ENDINGS)
async def test_a_restart_under_way_is_ended_too(how: str, autojump_clock: MockClock) -> None:
    async def slow_second(actor: Scripted) -> None:
        if len(actor.journal.times("start a")) == 2:
            await trio.sleep(3)

    journal = Journal()
    async with open_system(tree(child("a", journal, starting=slow_second)), journal) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(1)
        assert state_of(system, "a")["state"] == "starting"
        await end(system.ref("a"), how)
        await trio.sleep(10)
        assert journal.times("start a") == [0, 0]
        assert state_of(system, "a")["state"] == "stopped"


async def test_a_cancelled_stop_goes_on(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        await system.ref("a").tell(Echo(after=2))
        await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await system.ref("a").stop()
        assert state_of(system, "a")["state"] == "stopping"
        await trio.sleep(2)
        assert state_of(system, "a")["state"] == "stopped"


@pytest.mark.parametrize("how", ENDINGS)
async def test_a_handler_cannot_wait_for_its_own_end(how: str, autojump_clock: MockClock) -> None:
    async def end_self(actor: Scripted) -> Any:
        try:
            await end(actor.ref, how)
        except AskCycle as error:
            return error.cycle

    async with open_system(tree(child("a", Journal()))) as system:
        assert await system.ref("a").ask(Run(end_self)) == ["a", "a"]
        assert state_of(system, "a")["state"] == "ready"


async def test_an_error_in_on_stop_does_not_hinder_it(autojump_clock: MockClock) -> None:
    async def fail(_actor: Scripted) -> None:
        raise Boom("in on_stop")

    async with open_system(tree(child("a", Journal(), stopping=fail))) as system:
        await system.ref("a").stop()
        assert state_of(system, "a")["state"] == "stopped"


@pytest.mark.parametrize("how", ENDINGS)
async def test_a_system_that_stops_meanwhile_keeps_its_deadline(how: str, autojump_clock: MockClock) -> None:
    async def for_ever(_actor: Scripted) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        root = tree(child("a", Journal(), stopping=for_ever, shutdown=3.0))
        async with open_system(root, shutdown_deadline=3.0) as system:
            await system.ref("a").tell(Hold())
            await wait_all_tasks_blocked()
            nursery.start_soon(end, system.ref("a"), how)
            await trio.sleep(1)
        assert trio.current_time() <= 4


@pytest.mark.parametrize("how", ENDINGS)
async def test_who_has_ended_in_backoff_is_not_restarting_any_more(how: str, autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal(), backoff=Backoff(first=9.0)))) as system:
        await system.ref("a").tell(Crash())
        await wait_all_tasks_blocked()
        await end(system.ref("a"), how)
        with pytest.raises(ActorStopped):
            await system.ref("a").ask(Echo())


async def test_what_a_killed_handler_takes_to_clean_up_is_of_the_budget(autojump_clock: MockClock) -> None:
    async def clean_up_for_three_seconds(_actor: Scripted) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)

    async def hang(_actor: Scripted) -> None:
        await trio.sleep_forever()

    async with open_system(tree(child("a", Journal(), shutdown=5.0, stopping=hang))) as system:
        await system.ref("a").tell(Run(clean_up_for_three_seconds))
        await trio.sleep(10)
        await system.ref("a").kill()
        assert trio.current_time() == 15


async def test_a_stop_overtakes_a_drain_that_waits_for_an_answer_nobody_waits_for(autojump_clock: MockClock) -> None:
    root = tree(child("a", Journal(), ScriptedBatch, on_crash="retry_once"))
    async with open_system(root) as system, trio.open_nursery() as nursery:
        hold = Hold()
        await system.ref("a").tell(hold)
        asking = Asking(system, "a", AnswerLater(after=None), nursery)
        await wait_all_tasks_blocked()
        await system.ref("a").tell(Crash(times=1))
        hold.released.set()
        await wait_all_tasks_blocked()  # both are given again: the first has its answer open, the second waits for that
        asking.scope.cancel()
        nursery.start_soon(system.ref("a").drain)
        await trio.sleep(1)
        await system.ref("a").stop()
        assert trio.current_time() == 1


@pytest.mark.parametrize("how", ["kill", "crash"])
async def test_a_promise_that_falls_with_its_task_falls_by_the_crash_not_by_being_dropped(
    how: str, autojump_clock: MockClock
) -> None:
    async def keep(promises: list[Later]) -> None:
        try:
            await trio.sleep_forever()
        finally:
            promises.clear()

    async def linger() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)

    async def promise(actor: Scripted) -> Later:
        later = actor.later()
        actor.spawn(keep, [later])
        actor.spawn(linger)
        return later

    async with open_system(tree(child("a", Journal()))) as system, trio.open_nursery() as nursery:
        asking = Asking(system, "a", Run(promise), nursery)
        await wait_all_tasks_blocked()
        if how == "kill":
            await system.ref("a").kill()
        else:
            await system.ref("a").tell(Crash())
        await trio.sleep(5)
        assert (type(asking.error), asking.at) == (ActorCrashed, 1)


async def test_an_ask_that_the_budget_cuts_off_says_so(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system, trio.open_nursery() as nursery:
        asking = Asking(system, "a", Hold(), nursery)
        await wait_all_tasks_blocked()
        await system.ref("a").stop()
        await wait_all_tasks_blocked()
        assert isinstance(asking.error, ActorCrashed)
        assert isinstance(asking.error.__cause__, trio.TooSlowError)
        assert "cut off by the end of its shutdown budget" in str(asking.error)
        assert state_of(system, "a")["last_error"] == "TooSlowError: cut off by the end of its shutdown budget"
