"""Seeded schedules: one seed is one interleaving, found by a marker, told on failure, run again by an option."""

import random
from typing import Any

import pytest
import trio
import trio._core._run as trio_scheduler
from trio.testing import MockClock

from actors.runtime.testing import OpenSystem, open_test_system, seed_schedule
from tests.runtime_testing.conftest import RunFile


def trace_of(seed: int) -> str:
    trace: list[str] = []

    async def noter(name: str) -> None:
        for _ in range(4):
            trace.append(name)
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for name in "abcdef":
                nursery.start_soon(noter, name)

    seed_schedule(seed)
    trio.run(main, clock=MockClock())
    return "".join(trace)


def test_canary_one_seed_is_one_schedule() -> None:
    assert trace_of(7) == trace_of(7)


def test_a_system_runs_on_the_schedule_it_is_given_from_its_start() -> None:
    def trace(seed: int) -> str:
        trace: list[str] = []

        async def main() -> None:
            await trio.lowlevel.checkpoint()
            async with open_test_system(seed=seed), trio.open_nursery() as nursery:
                for name in "abcdef":
                    nursery.start_soon(note, name)

        async def note(name: str) -> None:
            trace.append(name)

        trio.run(main, clock=MockClock(autojump_threshold=0))
        return "".join(trace)

    assert trace(3) == trace(3) != trace(4)


def test_canary_other_seeds_are_other_schedules() -> None:
    assert len({trace_of(seed) for seed in range(20)}) == 20


@pytest.mark.parametrize("name", ["_ALLOW_DETERMINISTIC_SCHEDULING", "_r"])
def test_a_trio_without_the_hook_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delattr(trio_scheduler, name)
    with pytest.raises(RuntimeError, match="this trio has no"):
        seed_schedule(1)


def test_the_hook_leaves_the_programs_own_randomness_alone() -> None:
    before = random.getstate()
    seed_schedule(1)
    assert random.getstate() == before


SEEN: dict[int, str] = {}


@pytest.mark.schedules(8)
async def test_each_schedule_is_run_once(actor_system: OpenSystem, actor_seed: int) -> None:
    trace: list[str] = []

    async def note(name: str) -> None:
        trace.append(name)

    async with actor_system(), trio.open_nursery() as nursery:
        for name in "abcdef":
            nursery.start_soon(note, name)
    assert SEEN.setdefault(actor_seed, "".join(trace)) == "".join(trace)
    assert len(set(SEEN.values())) == len(SEEN)


RACE = """
@pytest.mark.schedules({count})
async def test_race(actor_system):
    order = []
    async def note(name):
        order.append(name)
    async with actor_system(Child("a", Echo, mailbox=BOX)):
        async with trio.open_nursery() as nursery:
            for name in "abcde":
                nursery.start_soon(note, name)
    assert order[0] != "b", "".join(order)
"""


def failures(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if line.startswith("FAILED")]


def test_the_marker_finds_a_race_and_the_option_shows_it_again(run_file: RunFile) -> None:
    many = run_file(RACE.format(count=20))
    outcomes = many.parseoutcomes()
    assert outcomes["failed"] >= 1
    assert outcomes["passed"] >= 1
    again = next(line for line in many.outlines if line.startswith("pytest "))
    seed = again.rpartition("=")[2]
    assert again == f"pytest 'test_it.py::test_race[seed{seed}]' --actor-seed={seed}"

    alone = run_file(RACE.format(count=20), f"--actor-seed={seed}")
    alone.assert_outcomes(failed=1)
    assert failures(alone)[0] in failures(many)


def test_the_option_reaches_seeds_beyond_the_markers(run_file: RunFile) -> None:
    result = run_file(RACE.format(count=2), "--actor-seed=1234", "-v")
    assert sum(result.parseoutcomes().get(kind, 0) for kind in ("passed", "failed")) == 1
    result.stdout.fnmatch_lines(["*test_race?seed1234?*"])


def test_the_marker_needs_no_fixture_and_goes_with_parameters(run_file: RunFile) -> None:
    result = run_file(
        """
@pytest.mark.trio
@pytest.mark.parametrize("x", "ab")
@pytest.mark.schedules(3)
async def test_async(x, autojump_clock):
    pass

@pytest.mark.schedules(2)
def test_sync(actor_seed):
    import random
    import trio._core._run as scheduler
    assert scheduler._r.random() == random.Random(actor_seed).random()
"""
    )
    result.assert_outcomes(passed=8)


def test_an_unmarked_test_runs_on_one_schedule_always_the_same(run_file: RunFile) -> None:
    source = RACE.format(count=1).replace("@pytest.mark.schedules(1)", "").replace('order[0] != "b"', "not order")
    first, second = (failures(run_file(source)) for _ in range(2))
    assert first == second != failures(run_file(source, "--actor-seed=5"))


@pytest.mark.parametrize("arguments", ["", "0", "'many'", "2.5", "n=3", "1, 2"])
def test_a_marker_that_makes_no_sense_is_refused(run_file: RunFile, arguments: str) -> None:
    result = run_file(f"@pytest.mark.schedules({arguments})\ndef test_it():\n    pass\n")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*test_it.py::test_it: write @pytest.mark.schedules(50), with n >= 1*"])


def test_hypothesis_and_the_marker_do_not_go_together(run_file: RunFile) -> None:
    result: Any = run_file(
        """
from hypothesis import given, strategies as st

@pytest.mark.schedules(3)
@given(st.integers())
def test_it(n):
    pass
"""
    )
    result.stdout.fnmatch_lines(["*Hypothesis seeds the scheduler itself*"])


def test_without_pytest_trio_the_kit_says_what_it_needs(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["actors.runtime.testing"]')
    result = pytester.runpytest_inprocess("-p", "no:trio", "-p", "no:randomly")
    result.stderr.fnmatch_lines(["*actors.runtime.testing needs the pytest-trio plugin*"])
