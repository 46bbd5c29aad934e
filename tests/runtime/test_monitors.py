"""A monitor gives exactly one Down: how an incarnation ended, and what comes next."""

import gc
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import Backoff, Down, Monitor, SupervisorGaveUp
from tests.runtime.support import Boom, Crash, Echo, End, Journal, Scripted, child, open_system, state_of, tree


async def of(monitor: Monitor) -> tuple[str, str, str]:
    down = await monitor
    return down.id, down.reason.kind, down.next


@pytest.mark.parametrize(
    ("restart", "message", "expected"),
    [
        ("permanent", Crash(), ("crashed", "restart")),
        ("permanent", End(), ("normal", "restart")),
        ("transient", Crash(), ("crashed", "restart")),
        ("transient", End(), ("normal", "end")),
        ("temporary", Crash(), ("crashed", "end")),
    ],
)
@pytest.mark.usefixtures("schedule")
async def test_an_incarnations_end_is_a_down(
    restart: str, message: Any, expected: tuple[str, str], autojump_clock: MockClock
) -> None:
    async with open_system(tree(child("a", Journal(), restart=restart))) as system:
        monitors = [await system.ref("a").monitor() for _ in range(3)]
        await system.ref("a").tell(message)
        assert [await of(monitor) for monitor in monitors] == [("a", *expected)] * 3


async def test_it_gives_its_down_once_and_the_same_to_whoever_awaits_it(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        monitor = await system.ref("a").monitor()
        await system.ref("a").tell(Crash())
        downs = [down async for down in monitor]
        await system.ref("a").tell(Crash())  # the next incarnation's is not this monitor's business
        await trio.sleep(5)
        assert len(downs) == 1
        assert await monitor is await monitor is downs[0]
        assert [down async for down in monitor] == []


async def test_a_monitor_of_the_dead_gives_its_down_at_once(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal(), restart="temporary"))) as system:
        await system.ref("a").tell(Crash())
        await wait_all_tasks_blocked()
        assert await of(await system.ref("a").monitor()) == ("a", "crashed", "end")
        assert trio.current_time() == 0
    assert await of(await system.ref("a").monitor()) == ("a", "crashed", "end")


async def test_in_backoff_the_down_is_that_of_the_incarnation_before(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal(), backoff=Backoff(first=9.0)))) as system:
        await system.ref("a").tell(Crash())
        await wait_all_tasks_blocked()
        assert await of(await system.ref("a").monitor()) == ("a", "crashed", "restart")
        assert trio.current_time() == 0
    assert await of(await system.ref("a").monitor()) == ("a", "crashed", "end")


async def test_the_next_incarnation_has_a_down_of_its_own(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(1)
        monitor = await system.ref("a").monitor()
        await wait_all_tasks_blocked()
        await system.ref("a").tell(End())
        assert await of(monitor) == ("a", "normal", "restart")


@pytest.mark.usefixtures("schedule")
async def test_a_sibling_that_goes_down_with_its_group_is_down(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()), child("b", Journal()), strategy="one_for_all")) as system:
        monitor = await system.ref("b").monitor()
        await system.ref("a").tell(Crash())
        assert await of(monitor) == ("b", "stopped", "restart")


async def test_the_end_of_the_system_is_a_down(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        monitor = await system.ref("a").monitor()
    assert await of(monitor) == ("a", "stopped", "end")


@pytest.mark.parametrize(("how", "kind"), [("stop", "stopped"), ("drain", "stopped"), ("kill", "killed")])
async def test_an_end_by_the_reference_is_a_down(how: str, kind: str, autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        monitor = await system.ref("a").monitor()
        await getattr(system.ref("a"), how)()
        assert await of(monitor) == ("a", kind, "end")


async def test_the_end_of_one_that_was_never_started_is_a_down(autojump_clock: MockClock) -> None:
    async def end_b(actor: Scripted) -> None:
        await actor.system.ref("b").stop()

    journal = Journal()
    async with open_system(tree(child("a", journal, starting=end_b), child("b", journal))) as system:
        assert await of(await system.ref("b").monitor()) == ("b", "stopped", "end")
        assert journal.order() == ["start a", "ready a"]


async def test_a_first_start_that_fails_is_a_down(autojump_clock: MockClock) -> None:
    monitors: list[Monitor] = []

    async def watch_b(actor: Scripted) -> None:
        monitors.append(await actor.system.ref("b").monitor())

    async def fail(_actor: Scripted) -> None:
        raise Boom("no start")

    root = tree(child("a", Journal(), starting=watch_b), child("b", Journal(), starting=fail))
    with pytest.raises(SupervisorGaveUp):
        async with open_system(root):
            pytest.fail("the body must not run")
    assert await of(monitors[0]) == ("b", "start_failed", "escalate")


async def test_giving_up_is_a_down(autojump_clock: MockClock) -> None:
    root = tree(tree(child("a", Journal()), id="inner", intensity=0))
    async with open_system(root) as system:
        monitor = await system.ref("a").monitor()
        await system.ref("a").tell(Crash())
        assert await of(monitor) == ("a", "crashed", "escalate")


async def test_an_actor_watches_another(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()), child("b", Journal()))) as system:
        monitor = await system.ref("a").monitor()
        seen: list[Down] = []

        async def watch() -> None:
            seen.append(await monitor)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await wait_all_tasks_blocked()
            assert not seen
            await system.ref("a").tell(Crash())
        assert seen[0].id == "a"


async def test_a_dropped_monitor_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        for _ in range(100):
            await system.ref("a").monitor()
        kept = await system.ref("a").monitor()
        gc.collect()
        assert len([thing for thing in gc.get_objects() if isinstance(thing, Monitor)]) == 1
        assert await system.ref("a").ask(Echo(1)) == 1
        assert state_of(system, "a")["state"] == "ready"
        del kept
