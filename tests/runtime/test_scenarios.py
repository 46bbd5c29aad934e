"""Random asks, tells, crashes and stops over small trees on random schedules: what holds in all of them.

- every ask ends exactly once, in a listed outcome;
- every accepted message is handled, refused or in dead letters: none is lost, none is settled twice;
- one sender's messages are handled in the order it sent them, across restarts;
- one incarnation at most is alive, and on_start never overlaps on_stop;
- children start as declared, stop in reverse, within the deadline, and leave no task behind.
"""

from collections import Counter
from random import Random
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import Event, Supervisor, SupervisorGaveUp
from actors.runtime import open_system as open_real_system
from tests.runtime.conftest import seed_schedule
from tests.runtime.scenario import IDS, SECONDS, STEPS, Record, Step, send, trees

DEADLINE = 2.0


async def run(root: Supervisor, record: Record, plans: list[list[Step]], seed: int, patience: float) -> None:
    def ignore(_event: Event) -> None: ...

    tasks = trio.lowlevel.current_statistics().tasks_living
    ended = trio.current_time()
    async with trio.open_nursery() as outsiders:
        try:
            async with open_real_system(root, shutdown_deadline=DEADLINE, rng=Random(seed), observer=ignore) as system:
                system.dead_letters.subscribe(record.letters.append)
                for sender, steps in enumerate(plans):
                    outsiders.start_soon(send, system, record, sender, steps)
                with trio.move_on_after(patience):
                    await trio.sleep_forever()
                assert list(dict.fromkeys(life for life in record.lives if life.startswith("start"))) == [
                    f"start {id}" for id in IDS
                ]
                record.lives.clear()
                ended = trio.current_time()
        except SupervisorGaveUp:
            record.lives = []
        else:
            assert trio.current_time() - ended <= DEADLINE + 1e-6
        await wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == tasks


def check(record: Record) -> None:
    assert record.most_alive <= 1
    assert not any(record.alive.values())
    letters = Counter(letter.message for letter in record.letters)
    reasons = {letter.message: letter.reason for letter in record.letters}
    begun = Counter(message for messages in record.begun.values() for message in messages)
    for message, outcomes in record.outcomes.items():
        assert len(outcomes) == 1, message
        outcome = outcomes[0]
        assert outcome != "cancelled"
        assert record.done[message] <= 1 + (begun[message] > 1)
        match outcome:
            case "answered":
                assert record.done[message] >= 1
                assert not letters[message]
            case "accepted":
                handled = record.done[message] > 0
                assert handled or letters[message] == 1, (message, begun[message])
                assert letters[message] <= 1
                if handled and letters[message]:
                    assert reasons[message] in ("crashed", "rejected")
            case "refused" | "ActorRestarting" | "ActorStopped" | "MailboxFull":
                assert not begun[message], (outcome, message)
            case "Reject":
                assert begun[message]
                assert message.step.work == "refuse"
            case "ActorCrashed":
                assert begun[message]
            case "AskTimeout":
                assert message.step.how == "ask_timeout"


def check_order(record: Record) -> None:
    for messages in record.begun.values():
        for sender in {message.sender for message in messages}:
            numbers = [message.number for message in messages if message.sender == sender]
            first = list(dict.fromkeys(numbers))
            assert first == sorted(first)


def check_stop_order(record: Record) -> None:
    """From when the stop began: what did not end by itself meanwhile was stopped in reverse order."""
    stops = [life.removeprefix("stop ") for life in record.lives if life.startswith("stop ")]
    assert stops == sorted(stops, reverse=True)


@settings(max_examples=150, deadline=None)
@given(build=trees(), plans=st.lists(STEPS, min_size=1, max_size=3), seed=st.integers(0, 2**32), patience=SECONDS)
def test_whatever_happens(build: Any, plans: list[list[Step]], seed: int, patience: float) -> None:
    record = Record()
    seed_schedule(seed)
    trio.run(run, build(record), record, plans, seed, 4 * patience, clock=MockClock(autojump_threshold=0))
    check(record)
    check_order(record)
    check_stop_order(record)
