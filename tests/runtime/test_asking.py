"""An ask ends in exactly one way: a value, or one of the errors; never silence."""

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from actors.runtime import (
    ActorCrashed,
    ActorRestarting,
    ActorStopped,
    AskCycle,
    AskTimeout,
    Backoff,
    Mailbox,
    MailboxFull,
    Reject,
)
from actors.runtime.spec import OnFull
from tests.runtime.support import (
    AnswerLater,
    Asking,
    Crash,
    Echo,
    End,
    Hold,
    Journal,
    Refuse,
    Run,
    Scripted,
    ScriptedBatch,
    ask_all,
    child,
    open_system,
    state_of,
    tree,
)


async def test_the_handlers_return_value_is_the_answer(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        assert await system.ref("a").ask(Echo(41)) == 41


@pytest.mark.parametrize("error", ["a word", ValueError("a value"), None])
async def test_a_refusal_reaches_the_asker_with_the_error_as_given(error: object, autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        with pytest.raises(Reject) as refusal:
            await system.ref("a").ask(Refuse(error))
        assert refusal.value.error is error
        assert state_of(system, "a")["incarnation"] == 1


async def test_a_timeout_ends_the_ask_at_its_time_and_the_work_goes_on(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal))) as system, trio.open_nursery() as nursery:
        ask = Asking(system, "a", Echo(after=3), nursery, timeout=2.0)
        await trio.sleep(2.5)
        assert isinstance(ask.error, AskTimeout)
        assert ask.at == 2.0
        await trio.sleep(1)
        assert system.dead_letters.counts["a", "late"] == 1
        assert await system.ref("a").ask(Echo(1)) == 1


async def test_an_ask_whose_asker_has_gone_is_not_handled(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal))) as system:
        unwanted = Echo("unwanted")
        await system.ref("a").tell(Echo(after=5))
        await wait_all_tasks_blocked()
        with trio.move_on_after(1) as scope:
            await system.ref("a").ask(unwanted)
        assert scope.cancelled_caught
        await trio.sleep(10)
        assert unwanted not in journal.handled
        assert system.dead_letters.counts["a", "abandoned"] == 1


async def test_a_timeout_of_zero_ends_at_once(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        with pytest.raises(AskTimeout):
            await system.ref("a").ask(Echo(), timeout=0)


async def test_a_deadline_extended_by_its_owner_holds_as_extended(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal))) as system, trio.open_nursery() as nursery:
        await system.ref("a").tell(Echo(after=2))
        await wait_all_tasks_blocked()
        ask = Asking(system, "a", Echo("patience"), nursery)
        ask.scope.deadline = trio.current_time() + 1
        await wait_all_tasks_blocked()
        ask.scope.deadline += 10
        await trio.sleep(3)
        assert ask.value == "patience"


async def test_an_expired_ask_ends_as_its_scope_says_not_with_an_error_of_its_own(mock_clock: MockClock) -> None:
    """The message is taken after its deadline, but before trio has noticed that the deadline passed."""
    journal = Journal()
    released = trio.Event()

    async def take_long_without_a_checkpoint(_actor: Scripted) -> None:
        await released.wait()
        mock_clock.jump(1.5)

    async with open_system(tree(child("a", journal))) as system:
        async with trio.open_nursery() as nursery:
            await system.ref("a").tell(Run(take_long_without_a_checkpoint))
            late = Echo("late")
            ask = Asking(system, "a", late, nursery)
            ask.scope.deadline = trio.current_time() + 1
            await wait_all_tasks_blocked()
            released.set()
        assert isinstance(ask.error, trio.Cancelled)
        assert late not in journal.handled
        assert system.dead_letters.counts == {("a", "expired"): 1}


@pytest.mark.parametrize(("passes", "expires"), [(0.001, False), (0.002, True), (0.5, True)])
async def test_a_pass_of_more_than_a_millisecond_may_have_been_too_long_for_an_ask(
    passes: float, expires: bool, mock_clock: MockClock
) -> None:
    released = trio.Event()

    async def take_long_without_a_checkpoint(_actor: Scripted) -> None:
        await released.wait()
        mock_clock.jump(passes)

    journal = Journal()
    async with open_system(tree(child("a", journal))) as system:
        async with trio.open_nursery() as nursery:
            await system.ref("a").tell(Run(take_long_without_a_checkpoint))
            late = Echo("late")
            ask = Asking(system, "a", late, nursery)
            ask.scope.deadline = trio.current_time() + passes
            await wait_all_tasks_blocked()
            released.set()
        assert (late not in journal.handled) is expires


@pytest.mark.parametrize("passes", [1.0, 1.5])
@pytest.mark.usefixtures("schedule")
async def test_nothing_is_taken_after_the_deadline_of_its_ask_whatever_else_took_long(
    passes: float, mock_clock: MockClock
) -> None:
    taken: list[float] = []

    async def note_time(_actor: Scripted) -> None:
        taken.append(trio.current_time())

    async def take_long_without_a_checkpoint() -> None:
        await trio.lowlevel.checkpoint()
        mock_clock.jump(passes)

    async with open_system(tree(child("a", Journal()))) as system:
        await system.ref("a").ask(Echo())
        mock_clock.jump(5)
        await wait_all_tasks_blocked()
        deadline = trio.current_time() + 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_long_without_a_checkpoint)
            ask = Asking(system, "a", Run(note_time), nursery)
            ask.scope.deadline = deadline
    assert all(at < deadline for at in taken)


async def test_an_ask_given_up_while_a_batch_was_in_hand_is_a_dead_letter(autojump_clock: MockClock) -> None:
    journal = Journal()
    hold = Hold()
    async with open_system(tree(child("a", journal, ScriptedBatch))) as system:
        async with trio.open_nursery() as nursery:
            await system.ref("a").tell(hold)
            given_up = Asking(system, "a", Echo(1), nursery)
            await wait_all_tasks_blocked()
            given_up.scope.cancel()
        hold.released.set()
        assert await system.ref("a").ask(Echo(2)) == 2
        assert system.dead_letters.counts == {("a", "abandoned"): 1}
        assert len(journal.handled) == 2


async def test_asking_an_actor_that_ended_fails_at_once(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal(), restart="temporary"))) as system:
        await system.ref("a").ask(End())
        await wait_all_tasks_blocked()
        before = trio.current_time()
        with pytest.raises(ActorStopped):
            await system.ref("a").ask(Echo())
        assert trio.current_time() == before


async def test_a_crash_fails_the_ask_in_hand_with_its_cause(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        crash = Crash()
        with pytest.raises(ActorCrashed, match="may have been handled") as crashed:
            await system.ref("a").ask(crash)
        assert crashed.value.__cause__ is crash.error


@pytest.mark.parametrize("message", [Echo(1), Refuse("no"), Crash()])
async def test_every_ask_is_a_checkpoint(message: object, autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        with assert_checkpoints():
            await ask_all(system, "a", [message])


async def test_asks_that_are_refused_are_checkpoints_too(autojump_clock: MockClock) -> None:
    async def ask_itself(actor: Scripted) -> None:
        with assert_checkpoints(), pytest.raises(AskCycle):
            await actor.ref.ask(Echo())

    async with open_system(tree(child("a", Journal(), backoff=Backoff(first=9.0)))) as system:
        await system.ref("a").ask(Run(ask_itself))
        await system.ref("a").tell(Crash())
        await wait_all_tasks_blocked()
        with assert_checkpoints(), pytest.raises(ActorRestarting):
            await system.ref("a").ask(Echo())
        await system.ref("a").stop()
        with assert_checkpoints(), pytest.raises(ActorStopped):
            await system.ref("a").ask(Echo())


@pytest.mark.parametrize("on_full", ["reject", "drop_new"])
async def test_asks_that_a_full_mailbox_turns_away_leave_the_loop_to_others(
    on_full: OnFull, autojump_clock: MockClock
) -> None:
    async with open_system(tree(child("a", Journal(), mailbox=Mailbox(1, on_full)))) as system:
        await system.ref("a").tell(Echo(after=5))
        await wait_all_tasks_blocked()
        await system.ref("a").tell(Echo())
        with assert_checkpoints(), pytest.raises(MailboxFull):
            await system.ref("a").ask(Echo())


@pytest.mark.usefixtures("schedule")
async def test_answers_given_before_the_asker_parks_are_not_lost(autojump_clock: MockClock) -> None:
    """Askers that wait for room are woken by the taker, who may answer before they run."""
    async with open_system(tree(child("a", Journal(), mailbox=Mailbox(1)))) as system:
        assert await ask_all(system, "a", [Echo(n) for n in range(40)]) == list(range(40))


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("ticks", range(8))
async def test_a_cancelled_asker_ends_in_cancelled_or_in_its_answer(ticks: int, autojump_clock: MockClock) -> None:
    """Cancelled at each step from waiting for room to being answered: it is not handled, or handled once."""
    journal = Journal()
    hold = Hold()
    async with open_system(tree(child("a", journal, mailbox=Mailbox(1)))) as system, trio.open_nursery() as nursery:
        await system.ref("a").tell(hold)
        await wait_all_tasks_blocked()
        await system.ref("a").tell(Echo())
        message = Echo("wanted")
        ask = Asking(system, "a", message, nursery)
        await wait_all_tasks_blocked()
        hold.released.set()
        for _ in range(ticks):
            await trio.lowlevel.cancel_shielded_checkpoint()
        ask.scope.cancel()
        await wait_all_tasks_blocked()
        assert ask.ended
        assert await system.ref("a").ask(Echo("next")) == "next"
        times = journal.handled.count(message)
        unhandled = system.dead_letters.counts["a", "abandoned"]
        if ask.value == "wanted":
            assert (times, unhandled) == (1, 0)
        else:
            assert isinstance(ask.error, trio.Cancelled)
            assert times + unhandled <= 1


@pytest.mark.usefixtures("schedule")
async def test_askers_waiting_for_room_are_told_when_the_actor_ends(autojump_clock: MockClock) -> None:
    journal = Journal()
    root = tree(child("a", journal, mailbox=Mailbox(1), restart="temporary"))
    async with open_system(root) as system, trio.open_nursery() as nursery:
        hold = Hold()
        held = Asking(system, "a", hold, nursery)
        await wait_all_tasks_blocked()
        asks = [Asking(system, "a", Echo(), nursery) for _ in range(3)]
        await wait_all_tasks_blocked()
        system.crash("a")  # the next message, not the one in hand
        hold.released.set()
        await wait_all_tasks_blocked()
        assert held.ended
        assert held.error is None
        assert sorted(type(ask.error).__name__ for ask in asks) == ["ActorCrashed", "ActorStopped", "ActorStopped"]


@pytest.mark.usefixtures("schedule")
async def test_the_messages_of_one_sender_are_handled_in_order(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal, mailbox=Mailbox(2)))) as system:

        async def send(name: str) -> None:
            for n in range(10):
                await system.ref("a").tell(Echo((name, n)))

        async with trio.open_nursery() as nursery:
            for name in "xyz":
                nursery.start_soon(send, name)
    for name in "xyz":
        assert [m.value[1] for m in journal.handled if m.value[0] == name] == list(range(10))


async def test_an_open_later_keeps_nobody_else_waiting(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system, trio.open_nursery() as nursery:
        slow = Asking(system, "a", AnswerLater("slow", after=5), nursery)
        quick = Asking(system, "a", Echo("quick"), nursery)
        await trio.sleep(6)
        assert (quick.value, quick.at) == ("quick", 0.0)
        assert (slow.value, slow.at) == ("slow", 5.0)
