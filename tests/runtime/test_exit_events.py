"""Every end of an incarnation is reported once: why, how often it was restarted, the delay, and what comes next."""

from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import (
    ActorExited,
    ActorTakenDown,
    Backoff,
    DynamicSupervisor,
    Event,
    Exit,
    Mailbox,
    StartFailed,
    SupervisorGaveUp,
    describe,
    log_event,
)
from tests.runtime.support import Boom, Crash, End, Hold, Journal, Scripted, child, open_system, tell_for_ever, tree

WAIT = Backoff(first=2.0, jitter=0.0)
End_ = tuple[str, str, int, float, str]


def ends(journal: Journal, *ids: str) -> list[End_]:
    """(id, kind, restarts, delay, next) of each end, in order; of those ids, if given."""
    return [
        (event.actor, event.exit.kind, event.restarts, round(event.delay, 6), event.next)
        for event in journal.events
        if isinstance(event, ActorExited | ActorTakenDown) and (not ids or event.actor in ids)
    ]


def taken_down(journal: Journal) -> list[str]:
    return [event.actor for event in journal.events if isinstance(event, ActorTakenDown)]


@pytest.mark.parametrize(
    ("message", "restart", "end"),
    [
        (Crash(), "permanent", ("a", "crashed", 0, 2.0, "restart")),
        (Crash(), "transient", ("a", "crashed", 0, 2.0, "restart")),
        (Crash(), "temporary", ("a", "crashed", 0, 0.0, "end")),
        (End(), "permanent", ("a", "normal", 0, 2.0, "restart")),
        (End(), "transient", ("a", "normal", 0, 0.0, "end")),
        (End(), "temporary", ("a", "normal", 0, 0.0, "end")),
    ],
)
@pytest.mark.usefixtures("schedule")
async def test_an_end_by_itself(message: Any, restart: str, end: End_, autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal, restart=restart, backoff=WAIT)), journal) as system:
        await system.ref("a").tell(message)
        await wait_all_tasks_blocked()
        assert ends(journal) == [end]  # at once
        await trio.sleep(10)
    assert ends(journal) == [end]


async def test_each_restart_counts(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal)), journal) as system:
        for _ in range(3):
            await system.ref("a").tell(Crash())
        await trio.sleep(10)
    assert ends(journal) == [("a", "crashed", n, delay, "restart") for n, delay in enumerate([0.0, 0.5, 1.0])]


async def test_a_start_that_fails_again(autojump_clock: MockClock) -> None:
    journal = Journal()

    async def fail_once(_actor: Scripted) -> None:
        if len(journal.times("start a")) == 2:
            raise Boom("not yet")

    async with open_system(tree(child("a", journal, starting=fail_once)), journal) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(10)
    assert ends(journal) == [("a", "crashed", 0, 0.0, "restart"), ("a", "start_failed", 1, 0.5, "restart")]


async def test_a_first_start_that_fails(autojump_clock: MockClock) -> None:
    journal = Journal()

    async def fail(_actor: Scripted) -> None:
        raise Boom("never")

    inner = tree(child("a", journal), child("b", journal, starting=fail), id="inner")
    with pytest.raises(SupervisorGaveUp):
        async with open_system(tree(inner), journal):
            pass
    assert ends(journal) == [
        ("b", "start_failed", 0, 0.0, "escalate"),
        ("a", "stopped", 0, 0.0, "escalate"),
        ("inner", "start_failed", 0, 0.0, "escalate"),
    ]


@pytest.mark.parametrize("how", ["stop", "drain", "kill"])
@pytest.mark.usefixtures("schedule")
async def test_an_end_by_its_reference(how: str, autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal)), journal) as system:
        await getattr(system.ref("a"), how)()
        await getattr(system.ref("a"), how)()
    assert ends(journal) == [("a", "killed" if how == "kill" else "stopped", 0, 0.0, "end")]
    assert taken_down(journal) == []


@pytest.mark.usefixtures("schedule")
async def test_a_group_that_is_restarted(autojump_clock: MockClock) -> None:
    journal = Journal()
    inner = tree(child("d", journal), id="inner")
    root = tree(child("a", journal), child("b", journal, backoff=WAIT), inner, strategy="one_for_all")
    async with open_system(root, journal) as system:
        await system.ref("b").tell(Crash())
        await trio.sleep(10)
    assert ends(journal) == [
        ("b", "crashed", 0, 2.0, "restart"),
        ("d", "stopped", 0, 2.0, "restart"),
        ("inner", "stopped", 0, 2.0, "restart"),
        ("a", "stopped", 0, 2.0, "restart"),
    ]
    assert taken_down(journal) == ["d", "inner", "a"]


async def test_a_child_that_fell_together_with_its_sibling_is_reported_at_once(autojump_clock: MockClock) -> None:
    async def slowly(_actor: Scripted) -> None:
        await trio.sleep(3)

    journal = Journal()
    root = tree(
        child("a", journal, backoff=Backoff(first=0.5)),
        child("b", journal, stopping=slowly),
        child("c", journal, backoff=Backoff(first=0.5)),
        strategy="one_for_all",
    )
    await trio.sleep(5)
    async with open_system(root, journal) as system:
        await system.ref("c").tell(Crash())
        await wait_all_tasks_blocked()
        await trio.sleep(0.25)
        await system.ref("a").tell(Crash())
        await wait_all_tasks_blocked()
        assert ends(journal) == [("c", "crashed", 0, 0.5, "restart"), ("a", "crashed", 0, 0.25, "restart")]
        await trio.sleep(10)
    assert ends(journal)[2:] == [("b", "stopped", 0, 0.0, "restart")]


async def test_what_was_restarted_before_says_nothing_about_the_next_time(autojump_clock: MockClock) -> None:
    journal = Journal()
    inner = tree(child("b", journal), id="inner")
    root = tree(child("a", journal, backoff=WAIT), inner, strategy="one_for_all")
    async with open_system(root, journal) as system:
        await system.ref("b").tell(Crash())
        await trio.sleep(5)
        await system.ref("a").tell(Crash())
        await trio.sleep(5)
    assert ends(journal, "b") == [("b", "crashed", 0, 0.0, "restart"), ("b", "stopped", 1, 2.0, "restart")]


async def test_a_temporary_child_that_goes_down_with_its_group(autojump_clock: MockClock) -> None:
    journal = Journal()
    root = tree(child("a", journal, restart="temporary"), child("b", journal), strategy="one_for_all")
    async with open_system(root, journal) as system:
        await system.ref("b").tell(Crash())
        await trio.sleep(10)
    assert ends(journal, "a") == [("a", "stopped", 0, 0.0, "end")]


async def test_a_supervisor_that_gives_up(autojump_clock: MockClock) -> None:
    journal = Journal()
    inner = tree(child("a", journal), child("b", journal), id="inner", intensity=0)
    async with open_system(tree(inner), journal) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(10)
    assert ends(journal) == [
        ("a", "crashed", 0, 0.0, "escalate"),
        ("b", "stopped", 0, 0.0, "escalate"),
        ("inner", "gave_up", 0, 0.0, "restart"),
    ]
    assert taken_down(journal) == ["b"]


async def test_a_root_that_gives_up(autojump_clock: MockClock) -> None:
    journal = Journal()
    with pytest.raises(SupervisorGaveUp):
        async with open_system(tree(child("a", journal), child("b", journal), intensity=0), journal) as system:
            await tell_for_ever(system, "a", Crash())
    assert ends(journal) == [
        ("a", "crashed", 0, 0.0, "escalate"),
        ("b", "stopped", 0, 0.0, "escalate"),
        ("root", "gave_up", 0, 0.0, "end"),
    ]


@pytest.mark.parametrize("budget", ["per_child", "shared"])
async def test_children_of_a_dynamic_supervisor(budget: Any, autojump_clock: MockClock) -> None:
    journal = Journal()
    dynamic = DynamicSupervisor(
        "d", partial(Scripted, "x", journal), mailbox=Mailbox(4), max_children=4, intensity=0, budget=budget
    )
    async with open_system(tree(dynamic), journal) as system:
        ref = await system.dynamic("d").start_child("x")
        await system.dynamic("d").start_child("y")
        await ref.tell(Crash())
        await trio.sleep(5)
    assert ends(journal, "x", "d") == (
        [("x", "crashed", 0, 0.0, "give_up")]
        if budget == "per_child"
        else [("x", "crashed", 0, 0.0, "escalate"), ("d", "gave_up", 0, 0.0, "restart")]
    )
    assert ends(journal, "y") == ([] if budget == "per_child" else [("y", "stopped", 0, 0.0, "end")])


async def test_a_dynamic_child_that_does_not_start(autojump_clock: MockClock) -> None:
    def fail() -> Scripted:
        raise Boom("no")

    journal = Journal()
    dynamic = DynamicSupervisor("d", fail, mailbox=Mailbox(4), max_children=4)
    async with open_system(tree(dynamic), journal) as system:
        with pytest.raises(StartFailed):
            await system.dynamic("d").start_child("x")
    assert ends(journal) == [("x", "start_failed", 0, 0.0, "end")]


@pytest.mark.usefixtures("schedule")
async def test_who_outlives_its_budget_in_a_group_restart_is_killed(autojump_clock: MockClock) -> None:
    journal = Journal()
    root = tree(child("a", journal), child("b", journal, shutdown=1.0), strategy="one_for_all")
    async with open_system(root, journal) as system:
        await system.ref("b").tell(Hold())
        await wait_all_tasks_blocked()
        await system.ref("a").tell(Crash())
        await trio.sleep(10)
    assert ends(journal, "b") == [("b", "killed", 0, 0.0, "restart")]


@pytest.mark.usefixtures("schedule")
async def test_the_stop_of_the_system_is_no_news_of_each_actor(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal), tree(child("b", journal), id="inner")), journal):
        pass
    assert ends(journal) == []


@pytest.mark.usefixtures("schedule")
async def test_a_crash_in_the_moment_of_the_stop_is_reported_whoever_comes_first(autojump_clock: MockClock) -> None:
    journal = Journal()
    inner = tree(child("a", journal), id="inner")
    async with open_system(tree(inner), journal) as system:
        await system.ref("a").tell(Crash(after=1.0))
        await trio.sleep(1.0)
    reported = ends(journal, "a")
    assert [kind for _id, kind, *_rest in reported] == ["crashed"]
    assert reported[0][-1] in ("restart", "end")


async def test_an_interrupt_is_the_exit_of_its_actor_too(autojump_clock: MockClock) -> None:
    journal = Journal()
    with pytest.raises(KeyboardInterrupt):
        async with open_system(tree(child("a", journal)), journal) as system:
            await tell_for_ever(system, "a", Crash(KeyboardInterrupt()))
    assert ends(journal) == [("a", "crashed", 0, 0.0, "end")]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (("stopped", 2, 1.5, "restart"), "a stopped by its supervisor; restart 3 in 1.5 s"),
        (("stopped", 0, 0.0, "escalate"), "a stopped by its supervisor; its supervisor gives up"),
        (("killed", 0, 0.0, "end"), "a killed by its supervisor; it stays down"),
    ],
)
def test_one_line_says_all_of_it(event: Any, line: str, caplog: pytest.LogCaptureFixture) -> None:
    kind, restarts, delay, next = event
    taken: Event = ActorTakenDown("a", Exit(kind), restarts, delay, next)
    assert describe(taken) == line
    caplog.set_level("INFO")
    log_event(taken)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("INFO", line)]
