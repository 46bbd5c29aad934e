"""A stop takes no longer than the budget of each child, and all of it no longer than the system's deadline."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import ShutdownOverrun
from tests.runtime.support import (
    EPSILON,
    Crash,
    Hold,
    Journal,
    Scripted,
    child,
    open_system,
    tree,
)


async def for_ever(_actor: Scripted) -> None:
    await trio.sleep_forever()


async def test_a_handler_that_hangs_is_cut_off_and_on_stop_keeps_its_share(autojump_clock: MockClock) -> None:
    journal = Journal()

    async def use_the_share(_actor: Scripted) -> None:
        await trio.sleep(1 - EPSILON)

    async with open_system(tree(child("a", journal, shutdown=5.0, stopping=use_the_share)), journal) as system:
        await system.ref("a").tell(Hold())
        await wait_all_tasks_blocked()
    assert journal.entries[2:] == [(4.0, "stop a"), (5.0 - EPSILON, "gone a")]
    assert [event for event in journal.events if isinstance(event, ShutdownOverrun)] == [
        ShutdownOverrun("a", "drain", 5.0)
    ]


async def test_an_on_stop_that_never_ends_is_cut_off_by_the_budget(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal, shutdown=3.0, stopping=for_ever)), journal):
        began = trio.current_time()
    assert trio.current_time() - began == 3.0
    assert ShutdownOverrun("a", "on_stop", 3.0) in journal.events


async def test_all_of_it_ends_by_the_systems_deadline(autojump_clock: MockClock) -> None:
    journal = Journal()
    root = tree(*(child(id, journal, shutdown=5.0, stopping=for_ever) for id in "abcd"))
    async with open_system(root, shutdown_deadline=12.0):
        began = trio.current_time()
    assert trio.current_time() - began == 12.0
    assert journal.order("stop") == ["stop d", "stop c", "stop b", "stop a"]


async def test_the_deadline_holds_for_an_on_stop_after_a_crash_in_mid_stop(autojump_clock: MockClock) -> None:
    """b takes 4 of the 5 seconds; a crashes shortly before its turn, with a budget of 5 s of its own."""
    journal = Journal()
    root = tree(child("a", journal, shutdown=5.0, stopping=for_ever), child("b", journal, shutdown=5.0))
    async with open_system(root, shutdown_deadline=5.0) as system:
        await system.ref("b").tell(Hold())
        await system.ref("a").tell(Crash(after=3.9))
        await wait_all_tasks_blocked()
    assert journal.times("stop a") == [3.9]
    assert trio.current_time() - journal.opened == 5.0


async def test_the_deadline_holds_for_a_group_restart_that_is_stopping_its_children(autojump_clock: MockClock) -> None:
    journal = Journal()
    inner = tree(
        *(child(id, journal, shutdown=4.0, stopping=for_ever) for id in "bcd"), id="inner", strategy="one_for_all"
    )
    root = tree(child("a", journal), inner, strategy="one_for_all")
    async with open_system(root, shutdown_deadline=5.0) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(1)  # d is being stopped for the restart of all
        began = trio.current_time()
    assert trio.current_time() - began <= 5.0


async def test_a_stop_during_a_start_keeps_the_deadline(autojump_clock: MockClock) -> None:
    journal = Journal()
    root = tree(
        *(child(id, journal, stopping=for_ever, shutdown=2.0) for id in "abc"),
        child("d", journal, starting=for_ever, start_timeout=60.0, shutdown=2.0),
    )
    with trio.move_on_after(1):
        async with open_system(root, shutdown_deadline=3.0):
            pass
    assert trio.current_time() - journal.opened == pytest.approx(4.0)


async def test_the_deadline_holds_for_an_incarnation_that_began_in_mid_stop(autojump_clock: MockClock) -> None:
    """A supervisor whose turn to stop has not come restarts its children as ever."""
    journal = Journal()
    inner = tree(child("a", journal, shutdown=5.0, stopping=for_ever_but_first), id="inner")
    root = tree(inner, child("b", journal, shutdown=5.0))
    async with open_system(root, shutdown_deadline=5.0) as system:
        await system.ref("b").tell(Hold())
        await system.ref("a").tell(Crash(after=1.0))
        await wait_all_tasks_blocked()
    assert journal.times("stop a") == [1.0, 4.0]
    assert trio.current_time() - journal.opened == 5.0


async def for_ever_but_first(actor: Scripted) -> None:
    if len(actor.journal.times(f"stop {actor.id}")) > 1:
        await trio.sleep_forever()
