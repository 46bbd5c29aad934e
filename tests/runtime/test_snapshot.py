"""The tree as JSON-ready dicts: state, incarnation, restarts, mailbox depth, age of the message in hand."""

import json
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import Backoff, Child, Mailbox, System
from tests.runtime.support import (
    AnswerLater,
    Asking,
    Crash,
    Echo,
    Hold,
    Journal,
    Scripted,
    child,
    open_system,
    state_of,
    tree,
)


async def test_it_has_the_shape_of_the_tree(autojump_clock: MockClock) -> None:
    inner = tree(child("b", Journal()), id="inner", strategy="rest_for_one", intensity=None)
    async with open_system(tree(child("a", Journal()), inner)) as system:
        snapshot = system.snapshot()
        assert json.loads(json.dumps(snapshot)) == snapshot
        assert (snapshot["id"], snapshot["kind"], snapshot["strategy"]) == ("root", "supervisor", "one_for_one")
        assert [node["id"] for node in snapshot["children"]] == ["a", "inner"]
        assert snapshot["children"][1]["children"][0]["kind"] == "actor"
        assert snapshot["children"][1]["intensity"] is None


async def test_it_shows_the_queue_and_the_age_of_the_message_in_hand(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal(), mailbox=Mailbox(8)))) as system:
        assert state_of(system, "a")["in_hand_age"] is None
        hold = Hold()
        await system.ref("a").tell(hold)
        await wait_all_tasks_blocked()
        await system.ref("a").tell(Echo())
        await system.ref("a").tell(Echo())
        await trio.sleep(3)
        node = state_of(system, "a")
        assert (node["in_hand_age"], node["mailbox_depth"], node["mailbox_capacity"]) == (pytest.approx(3), 2, 8)
        hold.released.set()
        await wait_all_tasks_blocked()
        node = state_of(system, "a")
        assert (node["in_hand_age"], node["mailbox_depth"]) == (None, 0)


async def test_a_message_whose_later_is_open_counts_as_in_hand(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system, trio.open_nursery() as nursery:
        Asking(system, "a", AnswerLater(after=4), nursery)
        await trio.sleep(1)
        Asking(system, "a", AnswerLater(after=2), nursery)
        await trio.sleep(1)
        assert state_of(system, "a")["in_hand_age"] == pytest.approx(2)  # of the oldest
        await trio.sleep(4)
        assert state_of(system, "a")["in_hand_age"] is None


async def test_in_backoff_nothing_is_in_hand(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal(), backoff=Backoff(first=9.0)))) as system:
        await system.ref("a").tell(Crash(after=1))
        await trio.sleep(2)
        node = state_of(system, "a")
        assert (node["state"], node["in_hand_age"]) == ("backoff", None)


async def test_it_shows_restarts_and_the_last_error(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        assert state_of(system, "a")["last_error"] is None
        await system.ref("a").tell(Crash())
        await system.ref("a").tell(Crash())
        await wait_all_tasks_blocked()
        node = state_of(system, "a")
        assert (node["state"], node["incarnation"], node["restarts"]) == ("backoff", 2, 1)
        assert node["last_error"] == "Boom: boom"
        await trio.sleep(0.25)
        assert state_of(system, "a")["state_age"] == pytest.approx(0.25)
        await trio.sleep(1)
        node = state_of(system, "a")
        assert (node["state"], node["incarnation"], node["restarts"]) == ("ready", 3, 2)


async def test_it_shows_what_an_actor_tells_of_itself(autojump_clock: MockClock) -> None:
    class Telling(Scripted):
        def describe(self) -> dict[str, int]:
            return {"connections": 3}

    async with open_system(tree(child("a", Journal(), Telling), child("b", Journal()))) as system:
        assert state_of(system, "a")["detail"] == {"connections": 3}
        assert state_of(system, "b")["detail"] == {}


async def test_an_actor_waits_for_those_before_it_in_the_order_of_starts(autojump_clock: MockClock) -> None:
    seen: list[str] = []

    async def look(actor: Scripted) -> None:
        seen.append(state_of(actor.system, "b")["state"])

    async with open_system(tree(child("a", Journal(), starting=look), child("b", Journal(), starting=look))):
        assert seen == ["waiting", "starting"]


async def test_an_actor_is_stopping_from_the_moment_it_is_asked_to(autojump_clock: MockClock) -> None:
    seen: list[str] = []

    async def look(system: System) -> None:
        await trio.sleep(1)
        seen.extend(state_of(system, id)["state"] for id in "abc")

    async with trio.open_nursery() as nursery, open_system(tree(*(child(id, Journal()) for id in "abc"))) as system:
        await system.ref("b").tell(Echo(after=2))
        await wait_all_tasks_blocked()
        nursery.start_soon(look, system)
    assert seen == ["ready", "stopping", "stopped"]


async def test_an_actor_that_is_down_waits_for_its_whole_group(autojump_clock: MockClock) -> None:
    async def slowly(_actor: Scripted) -> None:
        await trio.sleep(2)

    root = tree(child("a", Journal(), stopping=slowly), child("b", Journal()), child("c", Journal()))
    async with open_system(replace(root, strategy="one_for_all")) as system:
        await system.ref("c").tell(Crash())
        await trio.sleep(1)
        assert [state_of(system, id)["state"] for id in "abc"] == ["stopping", "waiting", "waiting"]
        await trio.sleep(2)
        assert [state_of(system, id)["state"] for id in "abc"] == ["ready", "ready", "ready"]


async def test_ages_are_differences_and_count_from_the_change(autojump_clock: MockClock) -> None:
    await trio.sleep(7)
    async with open_system(tree(child("a", Journal()))) as system:
        await trio.sleep(5)
        assert state_of(system, "a")["state_age"] == pytest.approx(5)
        await system.ref("a").tell(Echo(after=2))
        await trio.sleep(1)
        assert state_of(system, "a")["in_hand_age"] == pytest.approx(1)
        await system.ref("a").drain()
        await trio.sleep(3)
        assert state_of(system, "a")["state_age"] == pytest.approx(3)


async def test_the_mailbox_of_one_that_has_ended_is_empty(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        await system.ref("a").tell(Echo(after=1))
        await wait_all_tasks_blocked()
        await system.ref("a").tell(Echo())
        await system.ref("a").stop()
        assert state_of(system, "a")["mailbox_depth"] == 0


async def test_an_actor_that_its_factory_does_not_make_has_no_detail(autojump_clock: MockClock) -> None:
    journal = Journal()

    def only_once() -> Scripted:
        if journal.times("start a"):
            raise OSError("no more")
        return Scripted("a", journal)

    root = tree(Child("a", only_once, mailbox=Mailbox(4)), intensity=None)
    async with open_system(root) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(0.1)
        node = state_of(system, "a")
        assert (node["state"], node["incarnation"], node["detail"]) == ("backoff", 2, {})
        assert node["last_error"] == "OSError: no more"
