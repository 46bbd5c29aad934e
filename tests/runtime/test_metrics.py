"""Histograms of depth, age in hand and latency, of every actor, where the system was asked to keep them."""

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import DynamicSupervisor, Histogram, Mailbox, Pool, Supervisor, System
from actors.runtime.intake import MESSAGES_A_TURN
from actors.runtime.measures import DEPTHS, SECONDS, Counts
from tests.runtime.support import (
    AnswerLater,
    Asking,
    Crash,
    Echo,
    Journal,
    Refuse,
    Scripted,
    ScriptedBatch,
    ask_all,
    child,
    open_system,
    tree,
)


def buckets(histogram: Histogram) -> dict[float, int]:
    """The counts above zero by the upper bound of their bucket."""
    bounds = (*histogram.bounds, float("inf"))
    return {bound: count for bound, count in zip(bounds, histogram.counts, strict=True) if count}


def opened(*children: Any) -> Any:
    return open_system(tree(*children), metrics=True)


async def test_they_are_off_unless_asked_for(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        await system.ref("a").ask(Echo())
        assert system.metrics() == {}


async def test_every_actor_has_its_own(autojump_clock: MockClock) -> None:
    pool = Pool("p", lambda: Scripted("p", Journal()), size=2, mailbox=Mailbox(1))
    async with opened(child("a", Journal()), tree(child("b", Journal()), id="inner"), pool) as system:
        await system.ref("b").ask(Echo())
        metrics = system.metrics()
    assert {id: sum(of.latency.counts) for id, of in metrics.items()} == {"a": 0, "b": 1, "p.1": 0, "p.2": 0}


@pytest.mark.parametrize("actor", [Scripted, ScriptedBatch])
async def test_latency_counts_from_the_sending_and_age_from_the_taking(
    actor: type[Scripted], autojump_clock: MockClock
) -> None:
    async with opened(child("a", Journal(), actor)) as system:
        await system.ref("a").tell(Echo(after=0.2))
        await wait_all_tasks_blocked()
        await system.ref("a").tell(Echo(after=0.2))
        await trio.sleep(1)
        of = system.metrics()["a"]
    assert (buckets(of.message_age), of.message_age.total) == ({0.25: 2}, pytest.approx(0.4))
    assert (buckets(of.latency), of.latency.total) == ({0.25: 1, 0.5: 1}, pytest.approx(0.6))


async def test_the_messages_of_a_batch_are_as_old_as_the_batch(autojump_clock: MockClock) -> None:
    async with opened(child("a", Journal(), ScriptedBatch)) as system:
        await ask_all(system, "a", [Echo(after=0.2), Echo(after=0.2), Refuse("no")])
        of = system.metrics()["a"]
    assert buckets(of.message_age) == {0.5: 3}
    assert buckets(of.latency) == {0.5: 3}
    assert buckets(of.mailbox_depth) == {4: 1}


@pytest.mark.parametrize("actor", [Scripted, ScriptedBatch])
async def test_an_answer_given_later_counts_when_it_is_given(actor: type[Scripted], autojump_clock: MockClock) -> None:
    async with opened(child("a", Journal(), actor)) as system, trio.open_nursery() as nursery:
        Asking(system, "a", AnswerLater(after=2), nursery)
        Asking(system, "a", Echo(), nursery)
        await trio.sleep(1)
        assert buckets(system.metrics()["a"].latency) == {SECONDS[0]: 1}
        await trio.sleep(2)
        of = system.metrics()["a"]
    assert buckets(of.latency) == {SECONDS[0]: 1, 2.5: 1}
    assert (buckets(of.message_age), of.message_age.total) == ({SECONDS[0]: 1, 2.5: 1}, pytest.approx(2.0))


async def test_a_later_that_was_answered_before_it_was_returned_counts_once(autojump_clock: MockClock) -> None:
    class AtOnce(Scripted):
        async def handle(self, message: Any) -> Any:
            later = self.later()
            later.answer(1)
            return later

    async with opened(child("a", Journal(), AtOnce)) as system:
        await system.ref("a").ask(Echo())
        assert buckets(system.metrics()["a"].latency) == {SECONDS[0]: 1}


async def test_what_was_not_handled_does_not_count(autojump_clock: MockClock) -> None:
    async with opened(child("a", Journal(), on_crash="retry_once")) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(5)
        with trio.move_on_after(0):
            await system.ref("a").ask(Echo())
        await wait_all_tasks_blocked()
        assert buckets(system.metrics()["a"].latency) == {}


async def test_they_outlive_a_crash_and_latency_includes_the_restart(autojump_clock: MockClock) -> None:
    async with opened(child("a", Journal(), on_crash="retry_once")) as system:
        await system.ref("a").ask(Echo())
        crash = Crash(times=1)
        await system.ref("a").tell(Crash())
        await system.ref("a").ask(crash)  # behind a second failure, after 0.5 s
        of = system.metrics()["a"]
    assert buckets(of.latency) == {SECONDS[0]: 1, 2.5: 1}
    assert buckets(of.message_age) == {SECONDS[0]: 2}


async def test_the_depth_includes_what_is_taken_and_what_is_left(autojump_clock: MockClock) -> None:
    class Pairs(ScriptedBatch):
        batch_limit = 2

    async with opened(child("a", Journal(), Pairs)) as system:
        for _ in range(5):
            system.ref("a").try_tell(Echo())
        await wait_all_tasks_blocked()
        assert system.metrics()["a"].mailbox_depth.total == 5 + 3 + 1


async def test_one_by_one_it_is_looked_at_on_every_fourth_turn(autojump_clock: MockClock) -> None:
    async with opened(child("a", Journal(), mailbox=Mailbox(128))) as system:
        for _ in range(80):
            system.ref("a").try_tell(Echo())
        await wait_all_tasks_blocked()
        depth = system.metrics()["a"].mailbox_depth
    assert (sum(depth.counts), depth.total) == (1, 80 - 3 * MESSAGES_A_TURN)


async def test_a_dynamic_child_takes_its_own_along(autojump_clock: MockClock) -> None:
    dynamic = DynamicSupervisor("d", lambda: Scripted("x", Journal()), mailbox=Mailbox(1), max_children=2)
    async with opened(dynamic) as system:
        await system.dynamic("d").start_child("x")
        assert list(system.metrics()) == ["x"]
        await system.dynamic("d").stop_child("x")
        assert list(system.metrics()) == []


@given(st.lists(st.floats(0, 20), min_size=1, max_size=200))
def test_together_or_one_by_one_the_buckets_are_the_same(values: list[float]) -> None:
    together, single = Counts(SECONDS), Counts(SECONDS)
    together.add_all(values)
    for value in values:
        single.add(value)
    assert together.read().counts == single.read().counts
    assert together.read().total == pytest.approx(single.read().total)


def test_a_bound_belongs_to_its_bucket() -> None:
    counts = Counts(DEPTHS)
    for value in (0, 1, 2, 3, 4096, 4097):
        counts.add(value)
    assert buckets(counts.read()) == {0: 1, 1: 1, 2: 1, 4: 1, 4096: 1, float("inf"): 1}


async def test_nothing_that_was_measured_waits_for_more_to_come(autojump_clock: MockClock) -> None:
    async with opened(child("a", Journal())) as system:
        for number in range(1, 100):
            await system.ref("a").ask(Echo(after=0.2))
            of = system.metrics()["a"]
            assert (buckets(of.latency), buckets(of.message_age)) == ({0.25: number}, {0.25: number})


async def test_a_supervisor_measures_nothing(autojump_clock: MockClock) -> None:
    root = Supervisor("root", children=[Supervisor("inner")])
    async with open_system(root, metrics=True) as system:
        assert isinstance(system, System)
        assert system.metrics() == {}


def test_on_the_real_clock_differences_are_those_of_the_loop() -> None:
    async def main() -> None:
        async with open_system(tree(child("a", Journal()))) as system:
            begun, at = system.now(), trio.current_time()
            await system.ref("a").ask(Echo(after=0.01))
            assert system.now() - begun == pytest.approx(trio.current_time() - at, abs=0.005)

    trio.run(main)


async def test_the_time_of_the_last_answer_is_no_time_of_a_taking_much_later(autojump_clock: MockClock) -> None:
    async with opened(child("a", Journal())) as system:
        await system.ref("a").ask(Echo())
        await trio.sleep(5)
        system.ref("a").try_tell(AnswerLater(after=1))
        system.ref("a").try_tell(Echo(after=0.2))
        await trio.sleep(5)
        of = system.metrics()["a"]
    assert of.message_age.total == pytest.approx(0.0 + 1.0 + 0.2)


async def test_what_a_busy_actor_measured_is_not_kept_one_by_one(autojump_clock: MockClock) -> None:
    async with opened(child("a", Journal())) as system:
        for _ in range(1000):
            await system.ref("a").ask(Echo())
        measured = system.ref("a")._cell.measured
        assert len(measured.ages) < 100
        assert sum(system.metrics()["a"].message_age.counts) == 1000


async def test_of_a_batch_what_is_answered_later_counts_later(autojump_clock: MockClock) -> None:
    async with opened(child("a", Journal(), ScriptedBatch)) as system:
        for message in (AnswerLater(after=1), Echo(after=0.2), AnswerLater(after=1)):
            system.ref("a").try_tell(message)
        await trio.sleep(5)
        of = system.metrics()["a"]
    # The second promise was made 0.2 s after the first.
    assert of.message_age.total == of.latency.total == pytest.approx(1.0 + 0.2 + 1.2)
    assert sum(of.message_age.counts) == 3


async def test_a_batch_that_is_all_answered_later_counts_once(autojump_clock: MockClock) -> None:
    async with opened(child("a", Journal(), ScriptedBatch)) as system:
        for _ in range(2):
            system.ref("a").try_tell(AnswerLater(after=1))
        await trio.sleep(5)
        of = system.metrics()["a"]
    assert buckets(of.message_age) == buckets(of.latency) == {1.0: 2}
