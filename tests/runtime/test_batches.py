"""handle_batch: what is queued, in order, up to a limit; one result a message."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import ActorCrashed, InjectedCrash, Later, Mailbox, Reject
from tests.runtime.support import (
    AnswerLater,
    Asking,
    Crash,
    Echo,
    Hold,
    Journal,
    Refuse,
    Run,
    ScriptedBatch,
    ask_all,
    child,
    open_system,
    tree,
)


class Pairs(ScriptedBatch):
    batch_limit = 2


class Miscounting(ScriptedBatch):
    async def handle_batch(self, messages: list[Any]) -> list[Any]:
        return messages[:-1] if len(messages) > 1 else messages


async def test_what_is_queued_is_handed_over_together_and_in_order(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal, ScriptedBatch))) as system:
        hold = Hold()
        await system.ref("a").tell(hold)
        await wait_all_tasks_blocked()
        for n in range(5):
            await system.ref("a").tell(Echo(n))
        hold.released.set()
    assert [message.value for message in journal.handled[1:]] == [0, 1, 2, 3, 4]
    assert journal.order("batch") == ["batch of 1", "batch of 5"]


async def test_a_batch_is_no_larger_than_its_limit(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal, Pairs))) as system:
        for n in range(5):
            system.ref("a").try_tell(Echo(n))
        await wait_all_tasks_blocked()
    assert journal.order("batch") == ["batch of 2", "batch of 2", "batch of 1"]


@pytest.mark.usefixtures("schedule")
async def test_each_asker_gets_its_own_result(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal(), ScriptedBatch, mailbox=Mailbox(4)))) as system:
        assert await ask_all(system, "a", [Echo(n) for n in range(30)]) == list(range(30))


async def test_a_result_may_be_a_refusal_or_an_answer_given_later(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal(), ScriptedBatch))) as system, trio.open_nursery() as nursery:
        at_once = Asking(system, "a", Echo("now"), nursery)
        refused = Asking(system, "a", Refuse("no"), nursery)
        later = Asking(system, "a", AnswerLater("later", after=2), nursery)
        await trio.sleep(3)
        assert (at_once.value, at_once.at) == ("now", 0)
        assert isinstance(refused.error, Reject)
        assert refused.error.error == "no"
        assert (later.value, later.at) == ("later", 2)


async def test_messages_whose_asker_has_gone_are_left_out(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal, ScriptedBatch))) as system:
        hold, wanted = Hold(), Echo("wanted")
        await system.ref("a").tell(hold)
        await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await system.ref("a").ask(Echo("unwanted"))
        await system.ref("a").tell(wanted)
        hold.released.set()
    assert journal.handled == [hold, wanted]


async def test_a_wrong_number_of_results_is_a_crash(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal(), Miscounting))) as system:
        for error in await ask_all(system, "a", [Echo(), Echo()]):
            assert isinstance(error, ActorCrashed)
            assert isinstance(error.__cause__, TypeError)
            assert "1 results for 2 messages" in str(error.__cause__)


async def test_a_refusal_raised_by_handle_batch_is_a_crash_for_it_names_no_message(autojump_clock: MockClock) -> None:
    class Raising(ScriptedBatch):
        async def handle_batch(self, messages: list[Any]) -> list[Any]:
            raise Reject("whom?")

    async with open_system(tree(child("a", Journal(), Raising))) as system:
        with pytest.raises(ActorCrashed):
            await system.ref("a").ask(Echo())


@pytest.mark.usefixtures("schedule")
async def test_a_crash_fails_all_of_the_batch_and_none_of_the_queue(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal(), Pairs))) as system, trio.open_nursery() as nursery:
        hold = Hold()
        await system.ref("a").tell(hold)
        await wait_all_tasks_blocked()
        asks = []
        for message in (Echo(1), Crash(), Echo(3), Echo(4)):
            asks.append(Asking(system, "a", message, nursery))
            await wait_all_tasks_blocked()
        hold.released.set()
        await wait_all_tasks_blocked()
        assert [type(ask.error) for ask in asks] == [ActorCrashed, ActorCrashed, type(None), type(None)]
        assert [ask.value for ask in asks[2:]] == [3, 4]


async def test_batches_do_not_starve_other_tasks(autojump_clock: MockClock) -> None:
    journal = Journal()
    turns = 0
    async with open_system(tree(child("a", journal, Pairs, mailbox=Mailbox(1000)))) as system:
        for n in range(1000):
            system.ref("a").try_tell(Echo(n))
        while len(journal.handled) < 1000:
            turns += 1
            await trio.lowlevel.checkpoint()
    assert turns >= 490


@pytest.mark.parametrize("on_crash", ["fail", "retry_once"])
async def test_what_was_settled_before_the_crash_of_its_batch_is_not_in_hand_any_more(
    on_crash: str, autojump_clock: MockClock
) -> None:
    async def same_promise(actor: ScriptedBatch) -> Later:
        if not actor.kept:
            actor.kept.append(actor.later())
        return actor.kept[0]

    journal = Journal()
    async with open_system(tree(child("a", journal, ScriptedBatch, on_crash=on_crash))) as system:
        hold, told, once, twice = Hold(), Echo(), Run(same_promise), Run(same_promise)
        for message in (hold, told, once, twice):
            await system.ref("a").tell(message)
            await wait_all_tasks_blocked()
        hold.released.set()
        await trio.sleep(5)
        assert journal.order("batch")[:2] == ["batch of 1", "batch of 3"]
        assert journal.handled.count(told) == 1
        assert journal.handled.count(once) == (1 if on_crash == "fail" else 2)
        assert system.dead_letters.counts == ({("a", "crashed"): 2} if on_crash == "fail" else {})


async def test_nobody_is_handed_an_empty_batch(autojump_clock: MockClock) -> None:
    journal = Journal()
    hold = Hold()
    async with open_system(tree(child("a", journal, ScriptedBatch))) as system:
        async with trio.open_nursery() as nursery:
            await system.ref("a").tell(hold)
            given_up = Asking(system, "a", Echo(1), nursery)
            await wait_all_tasks_blocked()
            given_up.scope.cancel()
        hold.released.set()
        await wait_all_tasks_blocked()
    assert journal.order("batch") == ["batch of 1"]


async def test_an_answer_too_late_is_a_dead_letter(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal(), ScriptedBatch))) as system:
        assert await system.ref("a").ask(Echo(1)) == 1
        assert not system.dead_letters.counts
        with trio.move_on_after(1):
            await system.ref("a").ask(Echo(after=2))
        await trio.sleep(5)
        assert system.dead_letters.counts == {("a", "late"): 1}


async def test_an_injected_crash_takes_the_next_batch(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal(), ScriptedBatch))) as system:
        system.crash("a")
        with pytest.raises(ActorCrashed) as crashed:
            await system.ref("a").ask(Echo())
        assert isinstance(crashed.value.__cause__, InjectedCrash)
        assert await system.ref("a").ask(Echo(1)) == 1
