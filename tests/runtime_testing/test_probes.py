"""Probes: what they were sent, what they answer, and exact statements about when."""

from dataclasses import dataclass
from typing import Any

import pytest
import trio

from actors.runtime import Actor, ActorCrashed, AskTimeout, Child, Mailbox, Reject, Supervisor
from actors.runtime.testing import NEVER, After, Call, OpenSystem, Probe, Raise, RealClock
from tests.runtime_testing.conftest import RunFile


@dataclass(frozen=True)
class Greet:
    name: str


async def tell_after(probe: Probe, seconds: float, message: Any) -> None:
    await trio.sleep(seconds)
    await probe.ref.tell(message)


async def test_expect_returns_messages_in_order_by_type_or_value(actor_system: OpenSystem) -> None:
    probe = Probe("probe")
    async with actor_system(probe) as system:
        for message in (Greet("ada"), "hello", 3):
            await system.ref("probe").tell(message)
        assert (await probe.expect(Greet)).name == "ada"
        assert await probe.expect("hello") == "hello"
        assert await probe.expect(int) == 3
        assert probe.received == [Greet("ada"), "hello", 3]


async def test_something_else_is_a_failure_and_stays_unread(actor_system: OpenSystem) -> None:
    probe = Probe("probe")
    async with actor_system(probe):
        await probe.ref.tell("hello")
        await probe.ref.tell(3)
        text = r"probe 'probe' expected Greet, but next came 'hello' at 0 s \(and after it 3 at 0 s\)"
        with pytest.raises(AssertionError, match=text):
            await probe.expect(Greet)
        await probe.expect("hello")
        with pytest.raises(AssertionError, match=r"expected 4, but next came 3 at 0 s$"):
            await probe.expect(4)


@pytest.mark.schedules(10)
async def test_the_last_moment_counts_on_every_schedule(actor_system: OpenSystem) -> None:
    probe = Probe("probe")
    async with actor_system(probe), trio.open_nursery() as nursery:
        nursery.start_soon(tell_after, probe, 2.0, "first")
        nursery.start_soon(tell_after, probe, 4.0, "second")
        await probe.expect("first", within=2.0)
        with pytest.raises(AssertionError, match=r"expected nothing for 2\.0 s, but there came 'second' at 4 s"):
            await probe.expect_nothing(for_=2.0)
        assert trio.current_time() == 4


@pytest.mark.schedules(10)
async def test_just_after_the_last_moment_is_too_late(actor_system: OpenSystem) -> None:
    probe = Probe("probe")
    async with actor_system(probe), trio.open_nursery() as nursery:
        nursery.start_soon(tell_after, probe, 2.001, "late")
        await probe.expect_nothing(for_=1.0)
        with pytest.raises(AssertionError, match=r"expected str within 1\.0 s, but nothing came"):
            await probe.expect(str, within=1.0)
        assert trio.current_time() == 2.0
        await probe.expect("late")
        assert trio.current_time() == 2.001


async def test_scripts_answer_in_order_and_the_last_answer_stays(actor_system: OpenSystem) -> None:
    probe = Probe("probe").on(Greet, 1, Reject("busy"), 2).on("ping", "pong")
    async with actor_system(probe):
        ref = probe.ref
        assert await ref.ask(Greet("a")) == 1
        with pytest.raises(Reject) as refused:
            await ref.ask(Greet("a"))
        assert refused.value.error == "busy"
        assert [await ref.ask(Greet("a")) for _ in range(2)] == [2, 2]
        assert await ref.ask("ping") == "pong"
        assert await ref.ask("unscripted") is None
        probe.on("ping", "newer")
        assert await ref.ask("ping") == "newer"


async def test_slow_answers_hold_up_no_other(actor_system: OpenSystem) -> None:
    probe = Probe("probe").on("slow", After(5.0, "done")).on("refused", After(1.0, Reject("no"))).on("never", NEVER)
    async with actor_system(probe) as system:
        with pytest.raises(AskTimeout):
            await probe.ref.ask("never", timeout=1.0)
        assert trio.current_time() == 1
        answers = await system.ask_all("probe", "slow", "refused", "other")
        assert (answers[0], answers[1].error, answers[2]) == ("done", "no", None)
        assert trio.current_time() == 6


async def test_an_answer_may_be_computed(actor_system: OpenSystem) -> None:
    async def double(message: int) -> int:
        await trio.sleep(1)
        return 2 * message

    def refuse(message: str) -> None:
        raise Reject(message.upper())

    probe = Probe("probe").on(int, Call(double)).on(str, Call(refuse)).on(Greet, Call(lambda greet: greet.name))
    async with actor_system(probe) as system:
        answers = await system.ask_all("probe", 4, "no", Greet("ada"))
        assert (answers[0], answers[1].error, answers[2]) == (8, "NO", "ada")


async def test_a_probe_can_crash_and_remembers_all_of_its_lives(actor_system: OpenSystem) -> None:
    probe = Probe("probe").on("bomb", Raise(OSError), After(1.0, Raise(OSError)), "dud")
    async with actor_system(probe) as system:
        (first,) = await system.ask_all("probe", "bomb")
        (second,) = await system.ask_all("probe", "bomb")
        await system.wait_until_ready("probe")
        third = await system.ref("probe").ask("bomb")
        assert (type(first), type(second), third) == (ActorCrashed, ActorCrashed, "dud")
        assert probe.received == ["bomb"] * 3
        assert len(system.exits("probe")) == 2


async def test_a_probe_stands_anywhere_in_a_tree(actor_system: OpenSystem) -> None:
    class Asker(Actor[str]):
        async def handle(self, message: str) -> Any:
            return await self.lookup("store").ask(message)

    store = Probe("store").on("key", "value")
    inner = Supervisor("inner", children=[store.child(on_crash="retry_once")])
    tree = Supervisor("root", children=[inner, Child("asker", Asker, mailbox=Mailbox(1))])
    async with actor_system(tree) as system:
        assert await system.ref("asker").ask("key") == "value"
        assert await store.expect("key") == "key"


def test_a_probe_that_is_in_no_tree_says_so() -> None:
    with pytest.raises(LookupError, match=r"probe 'lost' was not started: is it in the tree\?"):
        _ = Probe("lost").ref


def test_a_script_has_an_answer() -> None:
    with pytest.raises(ValueError, match="at least one answer"):
        Probe("probe").on(str)


def test_expectations_are_not_made_on_the_real_clock() -> None:
    with pytest.raises(RealClock):
        trio.run(Probe("probe").expect, str)

    async def nothing() -> None:
        await Probe("probe").expect_nothing(for_=0.001)

    with pytest.raises(RealClock):
        trio.run(nothing)


def test_a_failed_expectation_is_the_tests_own_failure(run_file: RunFile) -> None:
    result = run_file(
        """
async def test_it(actor_system):
    probe = Probe("mailer")
    async with actor_system(probe):
        await probe.expect(str, within=3)
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*AssertionError: probe 'mailer' expected str within 3 s, but nothing came"])
