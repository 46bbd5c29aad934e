"""What the mutation run found nobody looking at."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import ActorRestarting, Backoff, SupervisorGaveUp
from tests.runtime.support import (
    Boom,
    Crash,
    Echo,
    Journal,
    Scripted,
    child,
    open_system,
    state_of,
    tell_for_ever,
    tree,
)


async def test_a_supervisor_that_fails_to_start_again_is_not_healthy_by_its_last_ready_time(
    autojump_clock: MockClock,
) -> None:
    async def only_once(_actor: Scripted) -> None:
        if len(journal.times("start a")) > 1:
            raise OSError("no start")

    journal = Journal()
    backoff = Backoff(first=0.0, min=1.0, max=3.0, jitter=0.0)  # healthy after 2 s
    inner = tree(child("a", journal, starting=only_once), id="inner", intensity=0, backoff=backoff)
    async with open_system(tree(inner, intensity=None), journal) as system:
        await trio.sleep(1)
        await system.ref("a").tell(Crash())
        await trio.sleep(5)
    assert [exit.delay for exit in journal.exits("inner")] == [0.0, 1.0, 2.0, 3.0]


async def test_who_gave_up_says_how_often_what_failed_and_why(autojump_clock: MockClock) -> None:
    with pytest.raises(SupervisorGaveUp) as caught:
        async with open_system(tree(child("a", Journal()), intensity=0, period=7.0)) as system:
            await tell_for_ever(system, "a", Crash(Boom("the reason")))
    assert isinstance(caught.value.__cause__, Boom)
    assert str(caught.value) == (
        "supervisor root gave up: a failed once too often (more than 0 failures in 7.0 s): Boom: the reason"
    )


async def test_a_supervisors_state_age_counts_from_its_last_change(autojump_clock: MockClock) -> None:
    inner = tree(child("a", Journal()), id="inner", intensity=0)
    async with open_system(tree(inner)) as system:
        await trio.sleep(2)
        assert await system.ref("a").ask(Echo(1)) == 1
        assert state_of(system, "inner")["state_age"] == pytest.approx(2)
        await system.ref("a").tell(Crash())
        await wait_all_tasks_blocked()
        await trio.sleep(0.5)
        assert state_of(system, "inner")["state_age"] == pytest.approx(0.5)


async def test_a_supervisors_state_from_before_its_start_to_its_stop(autojump_clock: MockClock) -> None:
    seen: list[str] = []

    async def look(actor: Scripted) -> None:
        inner = actor.system.snapshot()["children"][1]
        seen.append(inner["state"])

    inner = tree(child("b", Journal(), starting=look, stopping=look), id="inner")
    async with open_system(tree(child("a", Journal(), starting=look, stopping=look), inner)) as system:
        seen.append(state_of(system, "inner")["state"])
    assert seen == ["waiting", "starting", "ready", "stopping", "stopped"]


async def test_a_supervisors_last_error_is_why_it_gave_up(autojump_clock: MockClock) -> None:
    async with open_system(tree(tree(child("a", Journal()), id="inner", intensity=0))) as system:
        assert state_of(system, "inner")["last_error"] is None
        await system.ref("a").tell(Crash())
        await wait_all_tasks_blocked()
        assert state_of(system, "inner")["last_error"].startswith("SupervisorGaveUp: supervisor inner gave up: a ")


async def test_a_refused_ask_says_how_long_until_the_next_start_and_never_a_negative_time(
    autojump_clock: MockClock,
) -> None:
    async with open_system(tree(child("a", Journal(), backoff=Backoff(first=0.5)))) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(0.2)
        with pytest.raises(ActorRestarting) as caught:
            await system.ref("a").ask(Echo(1))
        assert caught.value.retry_after == pytest.approx(0.3)
        assert system.ref("a")._cell.retry_after() == pytest.approx(0.3)
        await trio.sleep(1)
        assert system.ref("a")._cell.retry_after() == 0.0


async def test_a_crash_while_stopping_is_reported_without_a_delay(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal)), journal) as system:
        await system.ref("a").tell(Crash(after=1))
        await wait_all_tasks_blocked()
    assert [(exit.exit.kind, exit.delay, exit.next) for exit in journal.exits("a")] == [("crashed", 0.0, "end")]


async def test_incarnations_leave_no_receiver_behind(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()), intensity=None)) as system:
        for _ in range(3):
            await system.ref("a").tell(Crash())
            await trio.sleep(60)
        queue = system.ref("a")._cell.queue
        assert queue._receive.statistics().open_receive_channels == 2  # the cell's and the one that is read
