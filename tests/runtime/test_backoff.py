"""How long a child waits before its next restart: the numbers, and the numbers in a running tree."""

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import Backoff
from tests.runtime.support import (
    EPSILON,
    AnswerLater,
    Crash,
    Echo,
    Journal,
    Refuse,
    Scripted,
    ScriptedBatch,
    ask_all,
    child,
    open_system,
    state_of,
    tree,
)


def test_the_schedule_of_the_defaults_without_jitter() -> None:
    assert [Backoff().delay(k, 0.0) for k in range(1, 10)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]


def test_the_defaults_are_those_that_are_documented() -> None:
    assert Backoff() == Backoff(first=0.0, min=0.5, max=30.0, jitter=0.2, reset_after=32)


def test_a_wait_doubles_thirty_times_and_no_more() -> None:
    endless = Backoff(min=1.0, max=float("inf"), jitter=0.0)
    assert [endless.delay(k, 0.0) for k in (31, 32, 33, 10_000)] == [2.0**29, 2.0**30, 2.0**30, 2.0**30]


def test_one_message_may_be_enough_to_be_healthy() -> None:
    easily_healthy = Backoff(reset_after=1)
    assert [easily_healthy.consecutive(4, 0.0, handled) for handled in (0, 1)] == [5, 1]


def test_jitter_lengthens_a_wait_by_its_fraction_at_most() -> None:
    assert Backoff(jitter=0.2).delay(3, 0.5) == pytest.approx(1.1)


@given(k=st.integers(1, 10_000), u=st.floats(0, 1, exclude_max=True), first=st.floats(0, 5), low=st.floats(0, 10))
def test_the_cap_holds_after_jitter_and_for_any_number(k: int, u: float, first: float, low: float) -> None:
    backoff = Backoff(first=first, min=low, max=30.0, jitter=0.9)
    delay = backoff.delay(k, u)
    assert delay == first if k == 1 else low <= delay <= 30.0
    assert backoff.delay(k + 1, u) >= delay or k == 1


@pytest.mark.parametrize(
    ("ready_for", "handled", "expected"),
    [(None, 0, 5), (15.24, 31, 5), (15.25, 0, 1), (0.0, 32, 1), (0.0, 0, 5), (None, 32, 5)],
)
def test_a_healthy_time_or_enough_messages_begin_a_new_row(
    ready_for: float | None, handled: int, expected: int
) -> None:
    assert Backoff().consecutive(4, ready_for, handled) == expected


@pytest.mark.parametrize(
    "wrong", [{"first": -1.0}, {"min": -0.1}, {"jitter": -0.1}, {"min": 2.0, "max": 1.0}, {"reset_after": 0}]
)
def test_numbers_that_make_no_schedule_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="backoff"):
        Backoff(**wrong)  # type: ignore[arg-type]


async def test_consecutive_crashes_wait_exactly_the_schedule(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal), intensity=None), journal) as system:
        for delay in (0.0, 0.5, 1.0, 2.0):
            await system.ref("a").tell(Crash())
            await wait_all_tasks_blocked()
            starts = len(journal.times("start a"))
            if delay:
                assert state_of(system, "a")["state"] == "backoff"
                await trio.sleep(delay - EPSILON)
                assert len(journal.times("start a")) == starts
                await trio.sleep(EPSILON)
                await wait_all_tasks_blocked()
                assert len(journal.times("start a")) == starts + 1
            assert state_of(system, "a")["state"] == "ready"
    assert [exit.delay for exit in journal.exits("a")] == [0.0, 0.5, 1.0, 2.0]
    assert journal.times("start a") == [0.0, 0.0, 0.5, 1.5, 3.5]


@pytest.mark.parametrize(("healthy", "delay"), [(15.25 - EPSILON, 0.5), (15.25, 0.0)])
async def test_the_row_ends_after_a_healthy_time_from_readiness(
    healthy: float, delay: float, autojump_clock: MockClock
) -> None:
    async def slow_start(_actor: Scripted) -> None:
        await trio.sleep(1)

    journal = Journal()
    async with open_system(tree(child("a", journal, starting=slow_start)), journal) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(1 + healthy)
        await system.ref("a").tell(Crash())
        await wait_all_tasks_blocked()
    assert [exit.delay for exit in journal.exits("a")] == [0.0, delay]


@pytest.mark.parametrize(("handled", "delay"), [(31, 0.5), (32, 0.0)])
@pytest.mark.parametrize("message", [Echo(), Refuse("no"), AnswerLater(after=0.0)])
@pytest.mark.parametrize("actor", [Scripted, ScriptedBatch])
async def test_the_row_ends_after_enough_handled_messages(
    handled: int, delay: float, message: Any, actor: type[Scripted], autojump_clock: MockClock
) -> None:
    """A poison message under load must not buy an outage."""
    journal = Journal()
    async with open_system(tree(child("a", journal, actor)), journal) as system:
        await system.ref("a").tell(Crash())
        await ask_all(system, "a", [message] * handled)
        await system.ref("a").tell(Crash())
        await wait_all_tasks_blocked()
    assert [exit.delay for exit in journal.exits("a")] == [0.0, delay]


async def test_messages_that_earlier_incarnations_handled_do_not_count(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal)), journal) as system:
        for _ in range(3):
            for _ in range(20):
                await system.ref("a").ask(Echo())
            await system.ref("a").tell(Crash())
            await trio.sleep(2)
    assert [exit.delay for exit in journal.exits("a")] == [0.0, 0.5, 1.0]


async def test_a_failed_restart_lengthens_the_wait(autojump_clock: MockClock) -> None:
    journal = Journal()

    async def fail_twice(_actor: Scripted) -> None:
        if len(journal.times("start a")) in (2, 3):
            raise OSError("not yet")

    async with open_system(tree(child("a", journal, starting=fail_twice)), journal) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(10)
        assert state_of(system, "a")["state"] == "ready"
    assert journal.times("start a") == [0.0, 0.0, 0.5, 1.5]
    assert [(exit.exit.kind, exit.delay) for exit in journal.exits("a")] == [
        ("crashed", 0.0),
        ("start_failed", 0.5),
        ("start_failed", 1.0),
    ]


async def test_a_restart_loop_without_any_delay_leaves_the_loop_to_others(autojump_clock: MockClock) -> None:
    async def fail_to_start(actor: Scripted) -> None:
        if len(actor.journal.times("start a")) > 1:
            raise OSError("never again")

    journal = Journal()
    never = Backoff(first=0.0, min=0.0, max=0.0)
    root = tree(child("a", journal, starting=fail_to_start, backoff=never), child("b", journal), intensity=None)
    async with open_system(root, journal) as system:
        await system.ref("a").tell(Crash())
        for n in range(50):
            assert await system.ref("b").ask(Echo(n)) == n
        assert len(journal.times("start a")) > 2
    assert state_of(system, "a")["state"] == "stopped"  # and a stop request gets in between
