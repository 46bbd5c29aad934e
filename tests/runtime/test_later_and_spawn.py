"""Answers given later, and the tasks that give them: they live and die with the incarnation."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import ActorCrashed, AskTimeout, Later, NeverAnswered, Reject, SupervisorGaveUp
from tests.runtime.support import (
    AnswerLater,
    Asking,
    Boom,
    Crash,
    Echo,
    End,
    Journal,
    Run,
    Scripted,
    child,
    open_system,
    state_of,
    tree,
)


async def test_a_later_can_refuse(autojump_clock: MockClock) -> None:
    async def refuse_later(actor: Scripted) -> Later:
        later = actor.later()

        async def refuse() -> None:
            await trio.sleep(1)
            later.fail("too late")

        actor.spawn(refuse)
        return later

    async with open_system(tree(child("a", Journal()))) as system:
        with pytest.raises(Reject) as refusal:
            await system.ref("a").ask(Run(refuse_later))
        assert refusal.value.error == "too late"
        await system.ref("a").tell(Run(refuse_later))
        await trio.sleep(2)
        assert system.dead_letters.counts == {("a", "rejected"): 1}


@pytest.mark.parametrize("ok", [True, False])
async def test_a_later_may_be_settled_before_it_is_returned(ok: bool, autojump_clock: MockClock) -> None:
    async def settle_first(actor: Scripted) -> Later:
        later = actor.later()
        if ok:
            later.answer("early")
        else:
            later.fail("early")
        return later

    async with open_system(tree(child("a", Journal()))) as system, trio.open_nursery() as nursery:
        ask = Asking(system, "a", Run(settle_first), nursery)
        await wait_all_tasks_blocked()
        assert (ask.value == "early") is ok
        assert isinstance(ask.error, Reject) is not ok
        assert state_of(system, "a")["in_hand_age"] is None


async def test_an_answer_after_its_asker_has_gone_is_counted_as_late(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        with trio.move_on_after(1):
            await system.ref("a").ask(AnswerLater(after=2))
        await trio.sleep(3)
        assert system.dead_letters.counts == {("a", "late"): 1}


@pytest.mark.parametrize("on_crash", ["fail", "retry_once"])
@pytest.mark.usefixtures("schedule")
async def test_a_message_whose_later_is_open_at_a_crash_is_in_hand(on_crash: str, autojump_clock: MockClock) -> None:
    journal = Journal()
    root = tree(child("a", journal, on_crash=on_crash))
    async with open_system(root) as system, trio.open_nursery() as nursery:
        message = AnswerLater("at last", after=1)
        ask = Asking(system, "a", message, nursery)
        await trio.sleep(0.5)
        await system.ref("a").tell(Crash(times=1))
        await trio.sleep(3)
        if on_crash == "fail":
            assert isinstance(ask.error, ActorCrashed)
            assert ask.at == 0.5
            assert journal.handled.count(message) == 1
        else:
            assert (ask.value, ask.at) == ("at last", 1.5)  # begun again at 0.5
            assert journal.handled.count(message) == 2


async def test_messages_given_again_wait_for_the_later_of_the_one_before(autojump_clock: MockClock) -> None:
    """Alone means alone: a poison message in hand crashes no other that is given again."""
    journal = Journal()
    root = tree(child("a", journal, on_crash="retry_once"))
    async with open_system(root) as system, trio.open_nursery() as nursery:
        slow = Asking(system, "a", AnswerLater("slow", after=2), nursery)
        await wait_all_tasks_blocked()
        poison = Asking(system, "a", Crash(), nursery)
        await trio.sleep(5)
        assert (slow.value, slow.at) == ("slow", 2)
        assert isinstance(poison.error, ActorCrashed)
        assert poison.at == 2


async def test_an_answer_given_later_after_a_crash_holds_up_no_other_message(autojump_clock: MockClock) -> None:
    """A hit never waits for a miss, not even for one that is loaded again because the actor crashed."""
    journal = Journal()
    root = tree(child("a", journal, on_crash="retry_once"))
    async with open_system(root) as system, trio.open_nursery() as nursery:
        misses = [Asking(system, "a", AnswerLater(n, after=2), nursery) for n in range(2)]
        await wait_all_tasks_blocked()
        await system.ref("a").tell(Crash(times=1))
        await trio.sleep(1)
        assert await system.ref("a").ask(Echo("hit"), timeout=0.001) == "hit"
        await trio.sleep(9)
        assert [miss.value for miss in misses] == [0, 1]


async def test_a_later_whose_asker_has_gone_holds_up_no_stop(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        with pytest.raises(AskTimeout):
            await system.ref("a").ask(AnswerLater("too late", after=60), timeout=1)
    assert trio.current_time() == 1


async def test_a_spawned_tasks_exception_crashes_the_incarnation(autojump_clock: MockClock) -> None:
    error = Boom("in the background")

    async def spawn_crash(actor: Scripted) -> None:
        async def fail() -> None:
            await trio.sleep(1)
            raise error

        actor.spawn(fail)

    journal = Journal()
    async with open_system(tree(child("a", journal)), journal) as system:
        await system.ref("a").ask(Run(spawn_crash))
        await trio.sleep(1.5)
        assert journal.times("start a") == [0, 1]
        assert journal.exits("a")[0].exit.error is error


async def test_spawned_tasks_die_with_the_incarnation_before_its_on_stop(autojump_clock: MockClock) -> None:
    journal = Journal()

    async def spawn_watcher(actor: Scripted) -> None:
        async def watch() -> None:
            try:
                await trio.sleep_forever()
            finally:
                journal.note("watcher gone")

        actor.spawn(watch)

    async with open_system(tree(child("a", journal))) as system:
        for end in (Crash(), End()):
            await system.ref("a").ask(Run(spawn_watcher))
            await system.ref("a").tell(end)
            await trio.sleep(3)
        assert journal.order()[2:5] == ["watcher gone", "stop a", "gone a"]
        assert journal.order().count("watcher gone") == 2


async def test_a_task_spawned_in_on_start_that_fails_there_is_a_start_failure(autojump_clock: MockClock) -> None:
    async def starting(actor: Scripted) -> None:
        async def fail() -> None:
            raise Boom("before ready")

        actor.spawn(fail)
        await trio.sleep(1)

    journal = Journal()
    with pytest.raises(SupervisorGaveUp) as gave_up:
        async with open_system(tree(child("a", journal, starting=starting))):
            pass
    assert isinstance(gave_up.value.__cause__, Boom)
    assert journal.order() == ["start a"]  # never ready, so no on_stop


async def test_a_stop_waits_for_open_laters(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        async with open_system(tree(child("a", Journal()))) as system:
            ask = Asking(system, "a", AnswerLater("in time", after=3), nursery)
            await wait_all_tasks_blocked()
        assert trio.current_time() >= 3
        await wait_all_tasks_blocked()
        assert ask.value == "in time"


async def test_a_later_that_is_never_answered_is_cut_off_by_the_budget(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with trio.open_nursery() as nursery:
        async with open_system(tree(child("a", journal, shutdown=5.0))) as system:
            ask = Asking(system, "a", AnswerLater(after=None), nursery)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert isinstance(ask.error, ActorCrashed)
        assert journal.times("stop a") == [4.0]  # 80 % of the budget; the rest is on_stop's


async def test_the_later_of_a_dead_incarnation_does_not_answer_for_the_next_one(autojump_clock: MockClock) -> None:
    kept: list[Later] = []

    async def keep(actor: Scripted) -> Later:
        kept.append(actor.later())
        return kept[-1]

    root = tree(child("a", Journal(), on_crash="retry_once"))
    async with open_system(root) as system, trio.open_nursery() as nursery:
        ask = Asking(system, "a", Run(keep), nursery)
        await wait_all_tasks_blocked()
        await system.ref("a").tell(Crash(times=1))
        await wait_all_tasks_blocked()
        kept[0].answer("from the dead")
        await wait_all_tasks_blocked()
        assert not ask.ended
        kept[1].answer("alive")
        await wait_all_tasks_blocked()
        assert ask.value == "alive"


async def test_answering_the_later_of_a_dead_incarnation_is_no_error(autojump_clock: MockClock) -> None:
    kept: list[Later] = []

    async def keep(actor: Scripted) -> Later:
        kept.append(actor.later())
        return kept[-1]

    async with open_system(tree(child("a", Journal()))) as system, trio.open_nursery() as nursery:
        ask = Asking(system, "a", Run(keep), nursery)
        await wait_all_tasks_blocked()
        await system.ref("a").tell(Crash())
        await wait_all_tasks_blocked()
        kept[0].answer("too late")
        await wait_all_tasks_blocked()
        assert isinstance(ask.error, ActorCrashed)
        assert await system.ref("a").ask(Echo("alive")) == "alive"


async def test_a_promise_that_was_never_given_may_be_dropped(autojump_clock: MockClock) -> None:
    async def think_better_of_it(actor: Scripted) -> str:
        actor.later()
        return "at once"

    async with open_system(tree(child("a", Journal()))) as system:
        assert await system.ref("a").ask(Run(think_better_of_it)) == "at once"


async def test_a_stop_waits_for_no_promise_that_was_dropped_meanwhile(autojump_clock: MockClock) -> None:
    async def forget(actor: Scripted) -> Later:
        later = actor.later()

        async def keep_for_a_second(_later: Later) -> None:
            await trio.sleep(1)

        actor.spawn(keep_for_a_second, later)
        return later

    async with open_system(tree(child("a", Journal()))) as system, trio.open_nursery() as nursery:
        asking = Asking(system, "a", Run(forget), nursery)
        await wait_all_tasks_blocked()
        await system.ref("a").stop()
        assert trio.current_time() == 1
        await wait_all_tasks_blocked()
        assert isinstance(asking.error, NeverAnswered)
