"""Systems under test: virtual time, order, crashes, waits, and what a failing test shows."""

import sys
from subprocess import run
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.runtime import (
    Actor,
    ActorCrashed,
    ActorRestarting,
    Backoff,
    Child,
    DynamicSupervisor,
    Mailbox,
    Pool,
    Supervisor,
    SupervisorGaveUp,
)
from actors.runtime.testing import InjectedFault, OpenSystem, RealClock, RunningSystem, open_test_system, with_faults
from tests.runtime_testing.conftest import RunFile

BOX = Mailbox(16)


class Echo(Actor[Any]):
    async def handle(self, message: Any) -> Any:
        return message


class Tired(Echo):
    """Crashes by itself, a second into each life."""

    async def on_start(self) -> None:
        self.spawn(self.fall)

    async def fall(self) -> None:
        await trio.sleep(1)
        raise OSError("tired")


async def lose_a_message(system: RunningSystem) -> None:
    system.system.crash("a")  # on its next message
    await system.ref("a").tell("lost")
    await system.wait_for_exit("a")


def echo(id: str, **options: Any) -> Child:
    return Child(id, Echo, mailbox=BOX, **options)


async def test_children_alone_make_a_tree_that_never_gives_up(actor_system: OpenSystem) -> None:
    async with actor_system(echo("a"), echo("b")) as system:
        assert await system.ref("a").ask(1) == 1
        for _ in range(5):
            await system.crash("b")
            await system.wait_until_ready("b")
        assert system.state("root")["intensity"] is None


async def test_an_hour_takes_no_time_without_asking_for_a_clock(actor_system: OpenSystem) -> None:
    async with actor_system(echo("a")):
        await trio.sleep(3600)
    assert trio.current_time() == 3600


async def test_a_clock_of_the_tests_own_is_kept(actor_system: OpenSystem, mock_clock: MockClock) -> None:
    async with actor_system(echo("a")):
        mock_clock.jump(7)
        assert trio.current_time() == 7


async def test_starts_and_stops_are_in_order(actor_system: OpenSystem) -> None:
    tree = Supervisor("top", children=[echo("a"), Supervisor("inner", children=[echo("b"), echo("c")])])
    async with actor_system(tree) as system:
        assert system.starts == ["a", "b", "c"]
        assert system.stops == []
    assert system.stops == ["c", "b", "a"]
    assert system.exits("a") == []


async def test_a_group_restart_shows_in_starts_and_stops(actor_system: OpenSystem) -> None:
    tree = Supervisor("top", strategy="rest_for_one", children=[echo("a"), echo("b"), echo("c")])
    async with actor_system(tree) as system:
        await system.crash("b")
        await system.wait_until_ready("c", incarnation=2)
        assert system.stops == ["b", "c"]
        assert system.starts == ["a", "b", "c", "b", "c"]


async def test_a_crash_is_there_when_crash_returns(actor_system: OpenSystem) -> None:
    async with actor_system(echo("a", backoff=Backoff(first=2.0, jitter=0.0))) as system:
        exit = await system.crash("a")
        assert (exit.exit.kind, type(exit.exit.error), exit.delay, exit.next) == (
            "crashed",
            InjectedFault,
            2.0,
            "restart",
        )
        with pytest.raises(ActorRestarting):
            await system.ref("a").ask(1)
        await system.wait_until_ready("a")
        assert trio.current_time() == 2
        assert await system.ref("a").ask(1) == 1


async def test_a_crash_takes_what_is_in_hand_with_it(actor_system: OpenSystem) -> None:
    class Busy(Echo):
        async def handle(self, message: Any) -> Any:
            await trio.sleep_forever()

    async with actor_system(Child("busy", Busy, mailbox=BOX)) as system, trio.open_nursery() as nursery:
        nursery.start_soon(system.crash, "busy", lambda: OSError("disk"))
        (answer,) = await system.ask_all("busy", 1)
        assert isinstance(answer, ActorCrashed)
        assert str(answer.__cause__) == "disk"


async def test_only_a_ready_actor_can_be_crashed(actor_system: OpenSystem) -> None:
    async with actor_system(echo("a", backoff=Backoff(first=1.0))) as system:
        await system.crash("a")
        with pytest.raises(AssertionError, match="a cannot be crashed, for it is not a ready actor: backoff"):
            await system.crash("a")
        with pytest.raises(AssertionError, match="root cannot be crashed"):
            await system.crash("root")
        with pytest.raises(LookupError, match="'b'"):
            await system.crash("b")


async def test_waits_end_when_it_happens_and_no_later_than_told(actor_system: OpenSystem) -> None:
    steady = Backoff(first=0.5, min=0.5, jitter=0.0)
    async with actor_system(Child("a", Tired, mailbox=BOX, backoff=steady)) as system:
        assert str((await system.wait_for_exit("a")).exit.error) == "tired"
        assert trio.current_time() == 1
        with pytest.raises(AssertionError, match=r"a was not ready in incarnation 1 within 0\.4 s: .* OSError: tired"):
            await system.wait_until_ready("a", within=0.4)
        await system.wait_until_ready("a", within=0.1)  # the last moment is in time
        assert trio.current_time() == 1.5
        with pytest.raises(AssertionError, match=r"a had 1 exits within 0\.9 s, not 2"):
            await system.wait_for_exit("a", 2, within=0.9)


async def test_a_wait_for_a_later_incarnation_passes_over_this_one(actor_system: OpenSystem) -> None:
    async with actor_system(Child("a", Tired, mailbox=BOX)) as system:
        await system.wait_until_ready("a", incarnation=2)
        assert trio.current_time() == 1
        await system.wait_until_ready("a", incarnation=1)
        assert trio.current_time() == 1


async def test_the_workers_of_a_pool_are_watched_like_any_other(actor_system: OpenSystem) -> None:
    async with actor_system(Pool("pool", Echo, size=2, mailbox=BOX)) as system:
        assert await system.ref("pool").ask(1) == 1
        await system.crash("pool.2")
        await system.wait_until_ready("pool.2")
        assert system.starts == ["pool.1", "pool.2", "pool.2"]
    assert system.stops == ["pool.2", "pool.2", "pool.1"]


class Named(Echo):
    def __init__(self, name: str) -> None:
        self.name = name

    async def handle(self, message: Any) -> Any:
        return self.name


@pytest.mark.parametrize(
    "workers",
    [
        DynamicSupervisor("workers", with_faults(Named), max_children=2, mailbox=BOX),
        DynamicSupervisor("workers", Child("template", Named, mailbox=BOX), max_children=2),
    ],
    ids=["factory", "template"],
)
async def test_children_that_come_and_go_are_watched_too(actor_system: OpenSystem, workers: DynamicSupervisor) -> None:
    async with actor_system(workers) as system:
        ada = await system.system.dynamic("workers").start_child("ada", "Ada")
        await system.crash("ada")
        await system.wait_until_ready("ada")
        assert await ada.ask("?") == "Ada"
        await system.system.dynamic("workers").stop_child("ada")
        assert (system.starts, system.stops) == (["ada", "ada"], ["ada", "ada"])


async def test_a_tree_that_gives_up_raises_bare(actor_system: OpenSystem) -> None:
    with pytest.raises(SupervisorGaveUp):
        async with actor_system(Supervisor("top", intensity=0, children=[echo("a")])) as system:
            await system.crash("a")


async def test_an_interrupt_ends_the_system_as_it_is(actor_system: OpenSystem) -> None:
    with pytest.raises(KeyboardInterrupt):
        async with actor_system(echo("a"), echo("b")) as system:
            await system.crash("a", KeyboardInterrupt)
    assert system.stops == ["a", "b"]


async def test_jitter_comes_from_the_seed(actor_system: OpenSystem) -> None:
    async def delay(seed: int) -> float:
        async with open_test_system(echo("a", backoff=Backoff(jitter=1.0)), seed=seed) as system:
            await system.crash("a")
            await system.wait_until_ready("a")
            return (await system.crash("a")).delay

    assert await delay(1) == await delay(1) != await delay(2)


async def test_dead_letters_are_no_concern_unless_asked(actor_system: OpenSystem) -> None:
    async with actor_system(echo("a")) as system:
        await lose_a_message(system)
    assert [(letter.message, letter.reason) for letter in system.dead_letters] == [("lost", "crashed")]
    with pytest.raises(AssertionError, match=r"messages went unhandled: 1 crashed at a\n  a: 'lost' \(crashed\)"):
        async with actor_system(echo("a"), no_dead_letters=True) as system:
            await lose_a_message(system)


def test_on_the_real_clock_the_kit_says_so() -> None:
    async def main() -> None:
        async with open_test_system(echo("a")):
            pass

    with pytest.raises(RealClock, match="this test runs on the real clock"):
        trio.run(main)


def test_with_a_clock_it_runs_outside_pytest() -> None:
    async def main() -> RunningSystem:
        async with open_test_system(echo("a")) as system:
            await trio.sleep(1000)
        return system

    assert trio.run(main, clock=MockClock(autojump_threshold=0)).stops == ["a"]


def test_a_failing_test_shows_its_schedule_and_what_happened(run_file: RunFile) -> None:
    result = run_file(
        """
        async def test_it(actor_system):
            async with actor_system(Child("a", Echo, mailbox=BOX)) as system:
                await trio.sleep(1.5)
                await system.crash("a", lambda: OSError("disk"))
                assert await system.ref("a").ask(1) == 2
        """.replace("\n        ", "\n")
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E *assert 1 == 2",
            "*actor schedule*",
            "seed 0; the same schedule again:",
            "pytest test_it.py::test_it --actor-seed=0",
            "*actor events*",
            " * 0.000  a is ready (incarnation 1)",
            " * 1.500  a stops",
            " * 1.500  a crashed: OSError: disk; restart 1 in 0.0 s",
            " * 1.500  a is ready (incarnation 2)",
        ]
    )


def test_a_way_to_run_the_test_does_not_bring_back_the_real_clock(run_file: RunFile) -> None:
    result = run_file(
        """
@pytest.mark.trio(run=trio.run)
async def test_it(actor_system):
    async with actor_system(Child("a", Echo, mailbox=BOX)):
        await trio.sleep(3600)
"""
    )
    result.assert_outcomes(passed=1)


def test_a_test_without_the_kit_is_left_alone(run_file: RunFile) -> None:
    result = run_file("def test_plain():\n    assert 0\n\n@pytest.mark.trio\nasync def test_real():\n    assert 0\n")
    result.assert_outcomes(failed=2)
    result.stdout.no_fnmatch_line("*actor schedule*")


def test_a_hypothesis_test_without_a_clock_is_told_what_to_do(run_file: RunFile) -> None:
    result = run_file(
        """
from hypothesis import given, settings, HealthCheck, strategies as st

@pytest.mark.trio
@settings(max_examples=3, suppress_health_check=list(HealthCheck))
@given(st.integers())
async def test_it(n):
    async with open_test_system(Child("a", Echo, mailbox=BOX)) as system:
        assert await system.ref("a").ask(n) == n

@pytest.mark.trio
@settings(max_examples=3, suppress_health_check=list(HealthCheck))
@given(n=st.integers())
async def test_clocked(n, autojump_clock):
    async with open_test_system(Child("a", Echo, mailbox=BOX)) as system:
        assert await system.ref("a").ask(n) == n
"""
    )
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*a Hypothesis test must take `autojump_clock` among its own arguments*"])


def test_the_runtime_needs_neither_the_kit_nor_pytest() -> None:
    code = "import sys, actors.runtime; print([m for m in sys.modules if 'pytest' in m or 'runtime.testing' in m])"
    found = run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
