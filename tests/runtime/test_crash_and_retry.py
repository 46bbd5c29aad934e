"""A crash costs the message in hand its answer (`fail`) or a second try (`retry_once`), and others nothing."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import ActorCrashed, ActorReady, ActorRestarting, AskTimeout, Backoff, InjectedCrash
from tests.runtime.support import (
    EPSILON,
    Asking,
    Boom,
    Crash,
    Echo,
    Hold,
    Journal,
    Run,
    Scripted,
    ScriptedBatch,
    ask_all,
    child,
    open_system,
    state_of,
    tree,
)

SLOW = Backoff(first=2.0, jitter=0.0)


async def test_a_crash_makes_a_new_incarnation_behind_the_same_ref(autojump_clock: MockClock) -> None:
    journal = Journal()
    actors = []

    async def myself(actor: Scripted) -> Scripted:
        actors.append(actor)
        return actor

    async with open_system(tree(child("a", journal)), journal) as system:
        ref = system.ref("a")
        await ref.ask(Run(myself))
        with pytest.raises(ActorCrashed):
            await ref.ask(Crash())
        await ref.ask(Run(myself))
        assert actors[0] is not actors[1]
        assert journal.order() == ["start a", "ready a", "stop a", "gone a", "start a", "ready a"]
        assert [event.incarnation for event in journal.events if isinstance(event, ActorReady)] == [1, 2]


async def test_fail_ends_asks_at_once_and_tells_in_dead_letters(autojump_clock: MockClock) -> None:
    async def linger(_actor: Scripted) -> None:
        await trio.sleep(3)

    async with open_system(tree(child("a", Journal(), stopping=linger))) as system:
        before = trio.current_time()
        with pytest.raises(ActorCrashed):
            await system.ref("a").ask(Crash())
        assert trio.current_time() == before  # not after on_stop
        await system.ref("a").tell(Crash())
        await trio.sleep(10)
        assert system.dead_letters.counts == {("a", "crashed"): 1}


async def test_a_fail_child_in_backoff_refuses_new_asks_and_keeps_queued_ones(autojump_clock: MockClock) -> None:
    root = tree(child("a", Journal(), backoff=SLOW))
    async with open_system(root) as system, trio.open_nursery() as nursery:
        hold = Hold()
        await system.ref("a").tell(hold)
        await wait_all_tasks_blocked()
        await system.ref("a").tell(Crash())
        await wait_all_tasks_blocked()
        queued = Asking(system, "a", Echo("queued"), nursery)
        await wait_all_tasks_blocked()
        hold.released.set()
        await trio.sleep(0.5)
        with pytest.raises(ActorRestarting) as restarting:
            await system.ref("a").ask(Echo())
        assert restarting.value.retry_after == 1.5
        await system.ref("a").tell(Echo())  # tells are kept
        await trio.sleep(1.5 + EPSILON)
        assert (queued.value, queued.at) == ("queued", 2.0)
        assert await system.ref("a").ask(Echo("back")) == "back"


@pytest.mark.usefixtures("schedule")
async def test_a_restart_without_delay_refuses_nobody(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system, trio.open_nursery() as nursery:
        await system.ref("a").tell(Crash())
        asks = []
        for n in range(12):  # at every step of the restart
            asks.append(Asking(system, "a", Echo(n), nursery))
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert [ask.value for ask in asks] == list(range(12))
        assert state_of(system, "a")["incarnation"] == 2


async def test_asks_to_a_retry_once_child_wait_through_its_backoff(autojump_clock: MockClock) -> None:
    root = tree(child("a", Journal(), on_crash="retry_once", backoff=SLOW))
    async with open_system(root) as system, trio.open_nursery() as nursery:
        in_hand = Asking(system, "a", Crash(times=1, value="second try"), nursery)
        await trio.sleep(0.5)
        patient = Asking(system, "a", Echo("patient"), nursery)
        hurried = Asking(system, "a", Echo("hurried"), nursery, timeout=1.0)
        await trio.sleep(5)
        assert (in_hand.value, in_hand.at) == ("second try", 2.0)
        assert (patient.value, patient.at) == ("patient", 1.5)
        assert isinstance(hurried.error, AskTimeout)
        assert hurried.at == 1.0


@pytest.mark.usefixtures("schedule")
async def test_one_poison_message_in_a_batch_hurts_nobody_else(autojump_clock: MockClock) -> None:
    journal = Journal()
    root = tree(child("a", journal, ScriptedBatch, on_crash="retry_once"))
    async with open_system(root) as system:
        poison = Crash()
        messages = [Echo(0), Echo(1), poison, Echo(3), Echo(4)]
        results = await ask_all(system, "a", messages)
        assert isinstance(results[2], ActorCrashed)
        assert [result for result in results if isinstance(result, int)] == [0, 1, 3, 4]
        assert journal.handled.count(poison) == 2


@pytest.mark.usefixtures("schedule")
async def test_messages_given_again_come_before_those_that_were_queued(autojump_clock: MockClock) -> None:
    class Twos(ScriptedBatch):
        batch_limit = 2

    journal = Journal()
    async with open_system(tree(child("a", journal, Twos, on_crash="retry_once"))) as system:
        hold = Hold()
        await system.ref("a").tell(hold)
        await wait_all_tasks_blocked()
        messages = [Crash(times=1), *(Echo(n) for n in range(4))]
        for message in messages:
            await system.ref("a").tell(message)
        hold.released.set()
        await wait_all_tasks_blocked()
        assert journal.handled[1:] == [messages[0], *messages]


async def test_a_told_poison_message_goes_to_dead_letters_after_its_second_crash(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal, on_crash="retry_once"))) as system:
        poison = Crash()
        await system.ref("a").tell(poison)
        await trio.sleep(10)
        assert journal.handled == [poison, poison]
        assert system.dead_letters.counts == {("a", "crashed"): 1}


async def test_a_retry_whose_deadline_passed_meanwhile_is_not_handled_again(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal, on_crash="retry_once", backoff=SLOW))) as system:
        message = Crash(times=1)
        with pytest.raises(AskTimeout):
            await system.ref("a").ask(message, timeout=1.0)
        await trio.sleep(5)
        assert journal.handled == [message]
        assert system.dead_letters.counts == {("a", "abandoned"): 1}


async def test_a_crash_while_stopping_says_that_the_message_may_have_been_handled(autojump_clock: MockClock) -> None:
    """`retry_once`, but there is no next incarnation to give it to."""
    journal = Journal()
    async with trio.open_nursery() as nursery:
        async with open_system(tree(child("a", journal, on_crash="retry_once")), journal) as system:
            in_hand = Asking(system, "a", Crash(after=1.0), nursery)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert isinstance(in_hand.error, ActorCrashed)
        assert isinstance(in_hand.error.__cause__, Boom)
        assert [exit.next for exit in journal.exits("a")] == ["end"]  # not swallowed


async def test_an_injected_crash_takes_the_next_message(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        assert await system.ref("a").ask(Echo(1)) == 1
        system.crash("a")
        with pytest.raises(ActorCrashed) as crashed:
            await system.ref("a").ask(Echo(2))
        assert isinstance(crashed.value.__cause__, InjectedCrash)
        assert await system.ref("a").ask(Echo(3)) == 3


async def test_the_next_start_begins_only_after_on_stop_has_returned(autojump_clock: MockClock) -> None:
    async def linger(_actor: Scripted) -> None:
        await trio.sleep(2)

    journal = Journal()
    async with open_system(tree(child("a", journal, stopping=linger))) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(3)
        assert journal.entries[2:5] == [(0.0, "stop a"), (2.0, "gone a"), (2.0, "start a")]
        assert state_of(system, "a")["state"] == "ready"


async def test_a_crashed_actor_is_not_ready_while_it_clears_up(autojump_clock: MockClock) -> None:
    async def linger(_actor: Scripted) -> None:
        await trio.sleep(2)

    async with open_system(tree(child("a", Journal(), stopping=linger))) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(1)
        assert state_of(system, "a")["state"] == "stopping"


async def test_a_stop_gives_nothing_again_but_answers_for_it(autojump_clock: MockClock) -> None:
    journal = Journal()
    root = tree(child("a", journal, ScriptedBatch, on_crash="retry_once"))
    async with open_system(root) as system, trio.open_nursery() as nursery:
        hold = Hold()
        await system.ref("a").tell(hold)
        await wait_all_tasks_blocked()
        asked = [Asking(system, "a", Echo(1, after=0.5), nursery)]
        await wait_all_tasks_blocked()
        asked.append(Asking(system, "a", Crash(times=1), nursery))
        await wait_all_tasks_blocked()
        hold.released.set()
        await trio.sleep(0.75)  # the first one is in hand again
        await system.ref("a").stop()
        await wait_all_tasks_blocked()
        assert (asked[0].value, asked[0].at) == (1, 1.0)
        assert isinstance(asked[1].error, ActorCrashed)
        assert journal.order("batch") == ["batch of 1", "batch of 2", "batch of 1"]


async def test_a_message_given_again_is_in_hand_from_then_on(autojump_clock: MockClock) -> None:
    async def fail_first(_actor: Scripted) -> None:
        if len(journal.times("start a")) == 1:
            raise Boom("first")
        await trio.sleep(2)

    async def take_a_second(_actor: Scripted) -> None:
        await trio.sleep(1)

    journal = Journal()
    root = tree(child("a", journal, starting=take_a_second, on_crash="retry_once", backoff=SLOW))
    async with open_system(root) as system:
        await system.ref("a").tell(Run(fail_first))
        await trio.sleep(3.5)  # it crashed at 0, was started again at 2 and has been ready since 3
        assert state_of(system, "a")["in_hand_age"] == pytest.approx(0.5)


async def test_messages_given_again_do_not_starve_other_tasks(autojump_clock: MockClock) -> None:
    seen: list[int] = []
    turn = 0

    async def look(_actor: Scripted) -> None:
        seen.append(turn)

    async with open_system(tree(child("a", Journal(), ScriptedBatch, on_crash="retry_once"))) as system:
        hold = Hold()
        await system.ref("a").tell(hold)
        await wait_all_tasks_blocked()
        for message in (*(Run(look) for _ in range(8)), Crash(times=1)):
            await system.ref("a").tell(message)
        hold.released.set()
        for turn in range(100):  # noqa: B007  # `look` sees it
            await trio.lowlevel.checkpoint()
    again = seen[8:]
    assert len(again) == 8
    assert max(again.count(turn) for turn in again) <= 2  # once a pass: one before this task's turn, one after it
