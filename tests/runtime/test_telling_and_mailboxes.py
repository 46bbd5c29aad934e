"""A tell is accepted or it says so; a mailbox is bounded, and its policy decides what a full one does."""

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from actors.runtime import ActorStopped, Mailbox, MailboxFull, System
from actors.runtime.envelope import Envelope
from actors.runtime.queue import MessageQueue
from actors.runtime.spec import OnFull
from tests.runtime.support import (
    Asking,
    Crash,
    Echo,
    End,
    Hold,
    Journal,
    Refuse,
    child,
    open_system,
    state_of,
    tree,
)


async def occupy(system: System, hold: Hold) -> None:
    """The actor has a message in hand from now on, and its mailbox is empty."""
    await system.ref("a").tell(hold)
    await wait_all_tasks_blocked()


async def test_a_tell_is_handled_and_answers_nothing(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal))) as system:
        message = Echo()
        with assert_checkpoints():
            await system.ref("a").tell(message)
        await wait_all_tasks_blocked()
        assert journal.handled == [message]
    assert not system.dead_letters.counts


@pytest.mark.parametrize("capacity", [1, 2, 7])
async def test_a_mailbox_holds_exactly_its_capacity_beside_the_message_in_hand(
    capacity: int, autojump_clock: MockClock
) -> None:
    async with open_system(tree(child("a", Journal(), mailbox=Mailbox(capacity)))) as system:
        hold = Hold()
        await occupy(system, hold)
        assert [system.ref("a").try_tell(Echo()) for _ in range(capacity + 1)] == [True] * capacity + [False]
        assert state_of(system, "a")["mailbox_depth"] == capacity
        hold.released.set()


async def test_wait_holds_the_sender_until_there_is_room(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal, mailbox=Mailbox(1)))) as system:
        await system.ref("a").tell(Echo(after=3))
        await wait_all_tasks_blocked()
        await system.ref("a").tell(Echo())
        began = trio.current_time()
        await system.ref("a").tell(Echo())
        assert trio.current_time() - began == 3
    assert len(journal.handled) == 3


async def test_wait_is_bounded_by_the_senders_cancel_scope(autojump_clock: MockClock) -> None:
    journal = Journal()
    unsent = Echo("unsent")
    async with open_system(tree(child("a", journal, mailbox=Mailbox(1)))) as system:
        await system.ref("a").tell(Echo(after=3))
        await wait_all_tasks_blocked()
        await system.ref("a").tell(Echo())
        with trio.move_on_after(1):
            await system.ref("a").tell(unsent)
    assert unsent not in journal.handled


@pytest.mark.parametrize("on_full", ["wait", "reject", "drop_new", "drop_old"])
async def test_a_cancelled_tell_was_not_sent(on_full: OnFull, autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal, mailbox=Mailbox(4, on_full)))) as system:
        with trio.CancelScope() as scope:
            scope.cancel()
            await system.ref("a").tell(Echo())
        assert scope.cancelled_caught
        await wait_all_tasks_blocked()
    assert journal.handled == []


async def test_reject_refuses_the_new_message(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal, mailbox=Mailbox(1, "reject")))) as system:
        hold, queued = Hold(), Echo("queued")
        await occupy(system, hold)
        await system.ref("a").tell(queued)
        with pytest.raises(MailboxFull):
            await system.ref("a").ask(Echo("no"))
        with pytest.raises(MailboxFull):
            await system.ref("a").tell(Echo("no"))
        assert system.ref("a").try_tell(Echo("no")) is False
        hold.released.set()
    assert journal.handled == [hold, queued]
    assert not system.dead_letters.counts  # the senders know


async def test_drop_new_loses_the_new_message_to_dead_letters(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal, mailbox=Mailbox(1, "drop_new")))) as system:
        hold, queued = Hold(), Echo("queued")
        await occupy(system, hold)
        await system.ref("a").tell(queued)
        await system.ref("a").tell(Echo("lost"))
        with pytest.raises(MailboxFull):
            await system.ref("a").ask(Echo("lost"))
        assert system.ref("a").try_tell(Echo("lost")) is False
        assert system.dead_letters.counts["a", "dropped"] == 3
        hold.released.set()
    assert journal.handled == [hold, queued]


async def test_drop_old_loses_the_oldest_message_whose_asker_is_told(autojump_clock: MockClock) -> None:
    journal = Journal()
    root = tree(child("a", journal, mailbox=Mailbox(2, "drop_old")))
    async with open_system(root) as system, trio.open_nursery() as nursery:
        hold = Hold()
        await occupy(system, hold)
        oldest = Asking(system, "a", Echo("oldest"), nursery)
        await wait_all_tasks_blocked()
        second, third = Echo("second"), Echo("third")
        await system.ref("a").tell(second)
        await system.ref("a").tell(third)
        await wait_all_tasks_blocked()
        assert isinstance(oldest.error, MailboxFull)
        newest = Asking(system, "a", Echo("newest"), nursery)
        await wait_all_tasks_blocked()
        hold.released.set()
        await wait_all_tasks_blocked()
        assert newest.value == "newest"
        assert [message.value for message in journal.handled[1:]] == ["third", "newest"]
        assert system.dead_letters.counts["a", "dropped"] == 2


async def test_telling_an_actor_that_ended_is_refused_and_counted(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal(), restart="temporary"))) as system:
        await system.ref("a").ask(End())
        await wait_all_tasks_blocked()
        with assert_checkpoints(), pytest.raises(ActorStopped):
            await system.ref("a").tell(Echo())
        assert system.ref("a").try_tell(Echo()) is False
        assert system.dead_letters.counts["a", "stopped"] == 2


@pytest.mark.usefixtures("schedule")
async def test_tellers_waiting_for_room_are_refused_when_the_actor_ends(autojump_clock: MockClock) -> None:
    refused = []
    async with open_system(tree(child("a", Journal(), mailbox=Mailbox(1), restart="temporary"))) as system:
        hold = Hold()
        await occupy(system, hold)

        async def tell() -> None:
            try:
                await system.ref("a").tell(Echo())
            except ActorStopped as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(tell)
            await wait_all_tasks_blocked()
            system.crash("a")
            hold.released.set()
        # One crashed the actor, one had taken its place in the mailbox, two were still waiting for room.
        assert len(refused) == 2
        assert system.dead_letters.counts == {("a", "crashed"): 1, ("a", "stopped"): 3}


async def test_a_refused_tell_goes_to_dead_letters(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        await system.ref("a").tell(Refuse("no"))
        await wait_all_tasks_blocked()
        assert system.dead_letters.counts == {("a", "rejected"): 1}


@pytest.mark.usefixtures("schedule")
async def test_queued_messages_survive_a_restart_in_order(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal))) as system:
        queued = [Echo(n) for n in range(10)]
        hold = Hold()
        await occupy(system, hold)
        await system.ref("a").tell(Crash())
        for message in queued:
            await system.ref("a").tell(message)
        hold.released.set()
        await wait_all_tasks_blocked()
        assert state_of(system, "a")["incarnation"] == 2
    assert journal.handled[2:] == queued


async def test_messages_handled_one_by_one_do_not_starve_other_tasks(autojump_clock: MockClock) -> None:
    """A handler without a checkpoint, an endless supply of messages: the loop still turns."""
    turns = 0
    async with open_system(tree(child("a", Journal(), mailbox=Mailbox(1000)))) as system:
        for n in range(1000):
            system.ref("a").try_tell(Echo(n))
        while state_of(system, "a")["mailbox_depth"]:
            turns += 1
            await trio.lowlevel.checkpoint()
    assert turns >= 1000 // 16


@pytest.mark.parametrize(
    ("on_full", "offers", "lost", "left"),
    [
        ("wait", ["accepted", "full"], [], ["first"]),
        ("reject", ["accepted", "full"], [], ["first"]),
        ("drop_new", ["accepted", "dropped"], ["second"], ["first"]),
        ("drop_old", ["accepted", "accepted"], ["first"], ["second"]),
    ],
)
async def test_what_a_full_queue_makes_of_an_offer(
    on_full: OnFull, offers: list[str], lost: list[str], left: list[str]
) -> None:
    given_up: list[Envelope] = []
    queue = MessageQueue(Mailbox(1, on_full), given_up.append)
    assert [queue.offer(Envelope(message, False, None)) for message in ("first", "second")] == offers
    assert [envelope.message for envelope in given_up] == lost
    assert [envelope.message for envelope in queue.take_rest()] == left


async def test_what_is_emptied_for_good_can_be_read_by_nobody() -> None:
    queue = MessageQueue(Mailbox(1), lambda _envelope: None)
    reader = queue.open_receiver()
    queue.take_rest()
    with pytest.raises(trio.ClosedResourceError):
        queue.open_receiver()
    reader.close()
