"""What is seen of a supervisor that goes down, waits, comes back or has ended: its state, its Down, its children's."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import (
    ActorRestarting,
    ActorStopped,
    Backoff,
    Child,
    DynamicSupervisor,
    Mailbox,
    SupervisorGaveUp,
    System,
)
from tests.runtime.support import (
    Boom,
    Crash,
    Echo,
    Journal,
    Scripted,
    child,
    open_system,
    state_of,
    tree,
)

SLOW = Backoff(first=2.0, jitter=0.0)


def states(system: System, *ids: str) -> list[str]:
    return [state_of(system, id)["state"] for id in ids]


def dynamic(journal: Journal, stops_for: float = 0.0, **options: object) -> DynamicSupervisor:
    async def stopping(_actor: Scripted) -> None:
        await trio.sleep(stops_for)

    def make(id: str) -> Scripted:
        return Scripted(id, journal, stopping=stopping)

    return DynamicSupervisor("many", Child("template", make, mailbox=Mailbox(4)), max_children=4, **options)  # type: ignore[arg-type]


async def seconds(_actor: Scripted) -> None:
    await trio.sleep(2)


async def test_one_that_goes_down_with_its_group_waits_for_those_before_it(autojump_clock: MockClock) -> None:
    inner = tree(child("b", Journal()), id="inner")
    root = tree(child("a", Journal(), stopping=seconds), inner, child("c", Journal()), strategy="one_for_all")
    async with open_system(root) as system:
        await system.ref("c").tell(Crash())
        await trio.sleep(1)
        assert states(system, "a", "inner", "b") == ["stopping", "waiting", "waiting"]
        await trio.sleep(2)
        assert states(system, "a", "inner", "b") == ["ready", "ready", "ready"]


async def test_one_is_stopping_as_long_as_a_child_of_it_is(autojump_clock: MockClock) -> None:
    inner = tree(child("b", Journal(), stopping=seconds), child("c", Journal()), id="inner")
    async with open_system(tree(child("a", Journal()), inner, strategy="one_for_all")) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(1)
        assert states(system, "inner", "b", "c") == ["stopping", "stopping", "waiting"]


async def test_in_backoff_with_its_group_all_below_it_is_in_backoff(autojump_clock: MockClock) -> None:
    inner = tree(child("b", Journal()), id="inner")
    async with open_system(tree(child("a", Journal(), backoff=SLOW), inner, strategy="one_for_all")) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(0.5)
        assert states(system, "a", "inner", "b") == ["backoff", "backoff", "backoff"]
        with pytest.raises(ActorRestarting) as caught:
            await system.ref("b").ask(Echo())
        assert caught.value.retry_after == pytest.approx(1.5)
        await trio.sleep(2)
        assert await system.ref("b").ask(Echo(1)) == 1


async def test_a_temporary_one_that_has_given_up_does_not_come_back_with_its_group(autojump_clock: MockClock) -> None:
    inner = tree(child("b", Journal()), id="inner", intensity=0, restart="temporary")
    async with open_system(tree(child("a", Journal()), inner, strategy="one_for_all")) as system:
        await system.ref("b").tell(Crash())
        await wait_all_tasks_blocked()
        assert states(system, "a", "inner", "b") == ["ready", "stopped", "stopped"]
        await system.ref("a").tell(Crash())
        await trio.sleep(1)
        assert states(system, "a", "inner", "b") == ["ready", "stopped", "stopped"]
        assert state_of(system, "inner")["incarnation"] == 1


async def test_one_whose_turn_to_start_never_came_ends_with_the_others(autojump_clock: MockClock) -> None:
    async def fail(_actor: Scripted) -> None:
        raise Boom("no start")

    systems: list[System] = []

    async def note_system(actor: Scripted) -> None:
        systems.append(actor.system)

    journal = Journal()
    inner = tree(child("c", journal), dynamic(journal), id="inner")
    root = tree(child("a", journal, starting=note_system), child("b", journal, starting=fail), inner)
    with pytest.raises(SupervisorGaveUp, match="b failed to start"):
        async with open_system(root):
            pytest.fail("the body must not run")
    assert states(systems[0], "root", "a", "b", "inner", "c") == ["stopped"] * 5
    with pytest.raises(ActorStopped):
        await systems[0].ref("c").ask(Echo())
    down = await (await systems[0].dynamic("many").monitor())
    assert (down.id, down.reason.kind, down.next) == ("many", "stopped", "end")


async def test_a_health_that_counts_from_the_last_start_of_a_supervisor(autojump_clock: MockClock) -> None:
    journal = Journal()
    await trio.sleep(100)
    inner = tree(child("a", journal), id="inner", intensity=0)
    async with open_system(tree(inner), journal) as system:
        for _ in range(3):
            await system.ref("a").tell(Crash())
            await trio.sleep(5)
    assert [exit.delay for exit in journal.exits("inner")] == [0.0, 0.5, 1.0]


async def test_a_supervisor_handles_no_messages_that_would_make_it_healthy(autojump_clock: MockClock) -> None:
    journal = Journal()
    inner = tree(child("a", journal), id="inner", intensity=0, backoff=Backoff(jitter=0.0, reset_after=1))
    async with open_system(tree(inner), journal) as system:
        for _ in range(2):
            await system.ref("a").ask(Echo())
            await system.ref("a").tell(Crash())
            await trio.sleep(1)
    assert [exit.delay for exit in journal.exits("inner")] == [0.0, 0.5]


async def test_going_down_with_its_group_is_a_down_and_each_life_has_its_own(autojump_clock: MockClock) -> None:
    root = tree(child("a", Journal()), dynamic(Journal()), strategy="one_for_all")
    async with open_system(root) as system:
        for _ in range(2):
            monitor = await system.dynamic("many").monitor()
            with trio.move_on_after(1) as too_early:
                await monitor
            assert too_early.cancelled_caught
            await system.ref("a").tell(Crash())
            down = await monitor
            assert (down.id, down.reason.kind, down.next) == ("many", "stopped", "restart")
            await trio.sleep(5)


async def test_its_end_with_the_system_is_a_down(autojump_clock: MockClock) -> None:
    async with open_system(tree(dynamic(Journal()))) as system:
        monitor = await system.dynamic("many").monitor()
    down = await monitor
    assert (down.id, down.reason.kind, down.next) == ("many", "stopped", "end")


async def test_giving_up_is_its_down_even_if_the_system_stops_meanwhile(autojump_clock: MockClock) -> None:
    root = tree(dynamic(Journal(), stops_for=2.0, budget="shared", intensity=0))
    async with open_system(root) as system:
        monitor = await system.dynamic("many").monitor()
        for id in "xy":
            await system.dynamic("many").start_child(id, id)
        await system.ref("x").tell(Crash())
        await trio.sleep(3)  # x took two seconds to go; then y has a second left
    assert trio.current_time() == 4
    down = await monitor
    assert (down.id, down.reason.kind, down.next) == ("many", "gave_up", "end")
