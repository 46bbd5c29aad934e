"""Restart intensity: OTP's sliding window, its boundary exactly, counted per failure."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from actors.runtime import Backoff, SupervisorGaveUp, System
from actors.runtime.intensity import Intensity
from tests.runtime.support import (
    EPSILON,
    Crash,
    End,
    Journal,
    Scripted,
    child,
    open_system,
    state_of,
    tell_for_ever,
    tree,
)

AT_ONCE = Backoff(first=0.0, min=0.0, max=0.0)


def verdicts(limit: int | None, period: float, times: list[float]) -> list[bool]:
    intensity = Intensity(limit, period)
    return [intensity.record(time) for time in times]


def test_exactly_the_limit_passes_and_one_more_does_not() -> None:
    assert verdicts(3, 5.0, [0.0, 0.1, 0.2, 0.3]) == [True, True, True, False]


def test_a_failure_exactly_a_period_old_still_counts() -> None:
    assert verdicts(1, 5.0, [0.0, 5.0]) == [True, False]
    assert verdicts(1, 5.0, [0.0, 5.0 + EPSILON]) == [True, True]


def test_failures_slower_than_the_window_never_add_up() -> None:
    """Not a count that clears only after a quiet gap: one crash every 2.6 s is at most two in any 5 s."""
    assert all(verdicts(2, 5.0, [2.6 * n for n in range(1000)]))


def test_none_never_gives_up() -> None:
    assert all(verdicts(None, 5.0, [0.0] * 1000))


def test_zero_allows_no_failure() -> None:
    assert verdicts(0, 5.0, [0.0]) == [False]


@given(
    limit=st.integers(0, 5),
    period=st.integers(1, 10),
    gaps=st.lists(st.integers(0, 6), max_size=40),
)
def test_it_is_a_count_over_the_last_period(limit: int, period: int, gaps: list[int]) -> None:
    intensity = Intensity(limit, period)
    times: list[int] = []
    now = 0
    for gap in gaps:
        now += gap
        times.append(now)
        assert intensity.record(now) is (sum(time >= now - period for time in times) <= limit)


@pytest.mark.parametrize("wrong", [(-1, 5.0), (3, 0.0), (3, -1.0)])
def test_numbers_that_make_no_window_are_refused(wrong: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match=r"intensity|period"):
        Intensity(*wrong)


@pytest.mark.parametrize(("gap", "survives"), [(5.0, False), (5.0 + EPSILON, True)])
async def test_the_window_in_a_running_tree(gap: float, survives: bool, autojump_clock: MockClock) -> None:
    """Three failures pass, the fourth is judged by whether the first is older than the period."""
    journal = Journal()
    root = tree(child("a", journal, backoff=AT_ONCE), intensity=3, period=5.0)

    async def crash_four_times() -> None:
        async with open_system(root) as system:
            for _ in range(3):
                await system.ref("a").tell(Crash())
            await trio.sleep(gap)
            await system.ref("a").tell(Crash())
            await trio.sleep(1)
            assert state_of(system, "a")["incarnation"] == 5

    if survives:
        await crash_four_times()
    else:
        with pytest.raises(SupervisorGaveUp, match=r"more than 3 failures in 5\.0 s"):
            await crash_four_times()
        assert len(journal.times("start a")) == 4


async def test_failed_restarts_count_as_failures(autojump_clock: MockClock) -> None:
    journal = Journal()

    async def only_once(_actor: Scripted) -> None:
        if len(journal.times("start a")) > 1:
            raise OSError("gone")

    with pytest.raises(SupervisorGaveUp) as gave_up:
        async with open_system(tree(child("a", journal, backoff=AT_ONCE, starting=only_once))) as system:
            await tell_for_ever(system, "a", Crash())
    assert isinstance(gave_up.value.__cause__, OSError)
    assert len(journal.times("start a")) == 4  # the first, and three restarts


async def test_normal_ends_of_a_permanent_child_count_as_in_otp(autojump_clock: MockClock) -> None:
    journal = Journal()
    with pytest.raises(SupervisorGaveUp):
        async with open_system(tree(child("a", journal, backoff=AT_ONCE), intensity=1)) as system:
            await tell_for_ever(system, "a", End(), End())
    assert len(journal.times("start a")) == 2


async def test_the_failures_of_all_children_share_the_window(autojump_clock: MockClock) -> None:
    async def body(system: System) -> None:
        await system.ref("a").tell(Crash())
        await trio.sleep(1)
        await tell_for_ever(system, "b", Crash())

    journal = Journal()
    with pytest.raises(SupervisorGaveUp):
        async with open_system(tree(child("a", journal), child("b", journal), intensity=1)) as system:
            await body(system)


async def test_one_group_restart_is_one_failure(autojump_clock: MockClock) -> None:
    journal = Journal()
    root = tree(*(child(id, journal) for id in "abc"), strategy="one_for_all", intensity=1)
    async with open_system(root) as system:
        await system.ref("b").tell(Crash())
        await trio.sleep(1)
        assert [state_of(system, id)["incarnation"] for id in "abc"] == [2, 2, 2]


@pytest.mark.usefixtures("schedule")
async def test_children_that_fall_together_are_one_failure_of_their_group(autojump_clock: MockClock) -> None:
    journal = Journal()
    root = tree(*(child(id, journal, backoff=AT_ONCE) for id in "abc"), strategy="one_for_all", intensity=1)
    async with open_system(root, journal) as system:
        for id in "abc":
            system.ref(id).try_tell(Crash())
        await trio.sleep(1)
        assert [state_of(system, id)["state"] for id in "abc"] == ["ready"] * 3
        assert [len(journal.times(f"start {id}")) for id in "abc"] == [2, 2, 2]


async def test_intensity_none_keeps_a_child_in_capped_backoff_for_ever(autojump_clock: MockClock) -> None:
    journal = Journal()

    async def only_once(_actor: Scripted) -> None:
        if len(journal.times("start a")) > 1:
            raise OSError("gone")

    root = tree(child("a", journal, starting=only_once), child("b", journal), intensity=None)
    async with open_system(root) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(3600)
        assert state_of(system, "a")["state"] == "backoff"
        assert state_of(system, "b")["state"] == "ready"
        starts = journal.times("start a")
        assert starts[-1] - starts[-2] == 30.0
