"""Which children go down and come up with a failed one, in which order, and which never come back."""

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import ActorRestarting, ActorStopped, Backoff, Supervisor, System
from actors.runtime.strategy import affected
from tests.runtime.support import (
    Boom,
    Crash,
    Echo,
    End,
    Hold,
    Journal,
    Scripted,
    child,
    open_system,
    state_of,
    tree,
)

SLOW = Backoff(first=2.0, jitter=0.0)


def abc(journal: Journal, strategy: str, **options: Any) -> Supervisor:
    return tree(*(child(id, journal, **options) for id in "abc"), strategy=strategy)


def incarnations(system: System, ids: str = "abc") -> list[int]:
    return [state_of(system, id)["incarnation"] for id in ids]


@given(failed=st.integers(0, 9), more=st.integers(1, 10))
def test_who_is_affected(failed: int, more: int) -> None:
    count = failed + more
    assert list(affected("one_for_one", failed, count)) == [failed]
    assert list(affected("one_for_all", failed, count)) == list(range(count))
    assert list(affected("rest_for_one", failed, count)) == list(range(failed, count))


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize(
    ("strategy", "failed", "expected"),
    [
        ("one_for_one", "b", [1, 2, 1]),
        ("rest_for_one", "a", [2, 2, 2]),
        ("rest_for_one", "b", [1, 2, 2]),
        ("rest_for_one", "c", [1, 1, 2]),
        ("one_for_all", "c", [2, 2, 2]),
    ],
)
async def test_who_is_restarted(strategy: str, failed: str, expected: list[int], autojump_clock: MockClock) -> None:
    async with open_system(abc(Journal(), strategy)) as system:
        await system.ref(failed).tell(Crash())
        await wait_all_tasks_blocked()
        assert incarnations(system) == expected
        for id in "abc":
            assert await system.ref(id).ask(Echo(id)) == id


@pytest.mark.usefixtures("schedule")
async def test_a_group_stops_in_reverse_order_and_starts_in_order(autojump_clock: MockClock) -> None:
    journal = Journal()

    async def take_a_second(_actor: Scripted) -> None:
        await trio.sleep(1)

    root = abc(journal, "one_for_all", starting=take_a_second, stopping=take_a_second)
    async with open_system(root) as system:
        await system.ref("b").tell(Crash())
        await trio.sleep(20)
        down = ["stop b", "gone b", "stop c", "gone c", "stop a", "gone a"]
        up = ["start a", "ready a", "start b", "ready b", "start c", "ready c"]
        assert journal.order() == up + down + up


async def test_a_group_waits_for_the_failed_childs_backoff(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(abc(journal, "one_for_all", backoff=SLOW)) as system:
        await system.ref("b").tell(Crash())
        await trio.sleep(1)
        assert [state_of(system, id)["state"] for id in "abc"] == ["backoff"] * 3
        for id in "abc":
            with pytest.raises(ActorRestarting) as restarting:
                await system.ref(id).ask(Echo())
            assert restarting.value.retry_after == 1.0
        await trio.sleep(2)
        assert journal.times("start a")[1:] == journal.times("start c")[1:] == [2.0]


@pytest.mark.usefixtures("schedule")
async def test_a_group_restart_finishes_what_siblings_have_in_hand_and_keeps_their_queues(
    autojump_clock: MockClock,
) -> None:
    journal = Journal()
    async with open_system(abc(journal, "one_for_all")) as system:
        await system.ref("c").tell(Echo("in hand", after=1))
        await wait_all_tasks_blocked()
        await system.ref("c").tell(Echo("queued"))
        await system.ref("a").tell(Crash())
        await trio.sleep(2)
        assert incarnations(system) == [2, 2, 2]
        assert [message.value for message in journal.handled if isinstance(message, Echo)] == ["in hand", "queued"]
        assert system.dead_letters.counts == {("a", "crashed"): 1}


async def test_the_failed_child_refuses_asks_while_its_siblings_still_stop(autojump_clock: MockClock) -> None:
    async def linger(_actor: Scripted) -> None:
        await trio.sleep(1)

    root = tree(child("a", Journal(), backoff=SLOW), child("b", Journal(), stopping=linger), strategy="one_for_all")
    async with open_system(root) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(0.5)
        with pytest.raises(ActorRestarting) as restarting:
            await system.ref("a").ask(Echo())
        assert restarting.value.retry_after == 1.5


async def test_a_sibling_that_hangs_cannot_hold_up_a_group_restart(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(abc(journal, "one_for_all", shutdown=5.0)) as system:
        await system.ref("c").tell(Hold())
        await wait_all_tasks_blocked()
        await system.ref("a").tell(Crash())
        await trio.sleep(10)
        assert journal.times("stop c") == [4.0]
        assert incarnations(system) == [2, 2, 2]


async def test_a_failure_during_a_group_restart_is_one_more_failure(autojump_clock: MockClock) -> None:
    journal = Journal()

    async def fail_on_second_start(actor: Scripted) -> None:
        if len(journal.times("start b")) == 2:
            raise Boom("b cannot start")

    root = tree(
        child("a", journal),
        child("b", journal, starting=fail_on_second_start),
        child("c", journal),
        strategy="rest_for_one",
    )
    async with open_system(root, journal) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(5)
        # rest_for_one: the failed start concerns b and what follows, not a, which is up again.
        assert [exit.exit.kind for exit in journal.exits("b")] == ["start_failed"]
        assert [len(journal.times(f"start {id}")) for id in "abc"] == [2, 3, 2]
        assert [state_of(system, id)["state"] for id in "abc"] == ["ready"] * 3


@pytest.mark.usefixtures("schedule")
async def test_a_crash_while_later_siblings_still_start_begins_the_group_anew(autojump_clock: MockClock) -> None:
    journal = Journal()

    async def slow(_actor: Scripted) -> None:
        await trio.sleep(2)

    root = tree(child("a", journal), child("b", journal, starting=slow), strategy="rest_for_one")
    async with open_system(root) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(1)
        await system.ref("a").tell(Crash())  # a is up again, b is still on its way
        await trio.sleep(10)
        assert [state_of(system, id)["state"] for id in "ab"] == ["ready", "ready"]
        assert journal.order("start") == ["start a", "start b", "start a", "start b", "start a", "start b"]


@pytest.mark.usefixtures("schedule")
async def test_a_siblings_failure_does_not_cut_a_backoff_short(autojump_clock: MockClock) -> None:
    journal = Journal()
    root = tree(child("a", journal), child("b", journal, backoff=SLOW), child("c", journal), strategy="rest_for_one")
    async with open_system(root) as system:
        await system.ref("b").tell(Crash())
        await trio.sleep(0.5)
        await system.ref("a").tell(Crash())
        await trio.sleep(5)
        assert journal.times("start a") == [0.0, 0.5]
        assert journal.times("start b") == [0.0, 2.0]
        assert journal.times("start c") == [0.0, 2.0]


@pytest.mark.usefixtures("schedule")
async def test_nor_that_of_a_supervisor(autojump_clock: MockClock) -> None:
    journal = Journal()
    inner = tree(child("b", journal), id="inner", intensity=0, backoff=SLOW)
    async with open_system(tree(child("a", journal), inner, strategy="rest_for_one")) as system:
        await system.ref("b").tell(Crash())
        await trio.sleep(0.5)
        await system.ref("a").tell(Crash())
        await trio.sleep(5)
        assert journal.times("start a") == [0.0, 0.5]
        assert journal.times("start b") == [0.0, 2.0]


@pytest.mark.usefixtures("schedule")
async def test_a_crash_in_mid_restart_leaves_alone_what_is_up_and_not_concerned(autojump_clock: MockClock) -> None:
    journal = Journal()

    async def slow(_actor: Scripted) -> None:
        await trio.sleep(2)

    root = tree(child("a", journal), child("b", journal), child("c", journal, starting=slow), strategy="rest_for_one")
    async with open_system(root) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(1)
        await system.ref("b").tell(Crash())  # a and b are up again, c is on its way
        await trio.sleep(5)
        assert incarnations(system) == [2, 3, 3]
        assert [state_of(system, id)["state"] for id in "abc"] == ["ready"] * 3


@pytest.mark.usefixtures("schedule")
async def test_one_for_one_restarts_are_independent(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(abc(journal, "one_for_one", backoff=SLOW)) as system:
        for id in "abc":
            await system.ref(id).tell(Crash())
            await trio.sleep(0.5)
        await trio.sleep(5)
        assert [journal.times(f"start {id}")[1] for id in "abc"] == [2.0, 2.5, 3.0]


@pytest.mark.parametrize(
    ("restart", "after_end", "after_crash"),
    [("permanent", "ready", "ready"), ("transient", "stopped", "ready"), ("temporary", "stopped", "stopped")],
)
async def test_restart_types(restart: str, after_end: str, after_crash: str, autojump_clock: MockClock) -> None:
    root = tree(child("ends", Journal(), restart=restart), child("crashes", Journal(), restart=restart))
    async with open_system(root) as system:
        await system.ref("ends").tell(End())
        await system.ref("crashes").tell(Crash())
        await trio.sleep(1)
        assert state_of(system, "ends")["state"] == after_end
        assert state_of(system, "crashes")["state"] == after_crash


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
async def test_what_is_queued_at_a_normal_end(restart: str, autojump_clock: MockClock) -> None:
    """It waits for the next incarnation; where there is none, it goes to dead letters and its askers are told."""
    journal = Journal()
    async with open_system(tree(child("a", journal, restart=restart))) as system:
        hold = Hold()
        await system.ref("a").tell(hold)
        await wait_all_tasks_blocked()
        await system.ref("a").tell(End())
        queued = Echo("queued")
        await system.ref("a").tell(queued)
        hold.released.set()
        if restart == "permanent":
            assert await system.ref("a").ask(Echo(1)) == 1
            assert queued in journal.handled
        else:
            with pytest.raises(ActorStopped):
                await system.ref("a").ask(Echo(1))
            assert queued not in journal.handled
            assert system.dead_letters.counts["a", "stopped"] >= 1


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
async def test_a_temporary_child_that_goes_down_with_its_siblings_does_not_come_back(
    strategy: str, autojump_clock: MockClock
) -> None:
    journal = Journal()
    root = tree(child("a", journal), child("b", journal, restart="temporary"), child("c", journal), strategy=strategy)
    async with open_system(root) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(1)
        assert incarnations(system) == [2, 1, 2]
        with pytest.raises(ActorStopped):
            await system.ref("b").ask(Echo())


@pytest.mark.usefixtures("schedule")
async def test_a_transient_child_that_ends_beside_a_group_restart_is_settled_one_way(
    autojump_clock: MockClock,
) -> None:
    journal = Journal()
    root = tree(child("a", journal), child("b", journal, restart="transient"), strategy="one_for_all")
    async with open_system(root) as system:
        system.ref("a").try_tell(Crash())
        system.ref("b").try_tell(End())
        await trio.sleep(1)
        assert state_of(system, "a")["state"] == "ready"
        assert state_of(system, "b")["state"] in ("ready", "stopped")
        assert len(journal.times("stop b")) == 1


async def test_a_transient_child_that_has_ended_starts_again_with_its_group(autojump_clock: MockClock) -> None:
    """As in OTP: its specification is still there."""
    root = tree(child("a", Journal()), child("b", Journal(), restart="transient"), strategy="one_for_all")
    async with open_system(root) as system:
        await system.ref("b").tell(End())
        await wait_all_tasks_blocked()
        assert state_of(system, "b")["state"] == "stopped"
        await system.ref("a").tell(Crash())
        await wait_all_tasks_blocked()
        assert incarnations(system, "ab") == [2, 2]
        assert await system.ref("b").ask(Echo(1)) == 1


async def test_a_temporary_child_that_went_down_with_its_group_has_ended_while_the_others_wait(
    autojump_clock: MockClock,
) -> None:
    root = tree(child("a", Journal(), backoff=SLOW), child("b", Journal(), restart="temporary"), strategy="one_for_all")
    async with open_system(root) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(1)
        assert [state_of(system, id)["state"] for id in "ab"] == ["backoff", "stopped"]
        with pytest.raises(ActorStopped):
            await system.ref("b").ask(Echo())
