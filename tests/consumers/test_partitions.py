"""Which of the fetched records may be handed over, and what is committed."""

from actors.consumers.partitions import Blocked, PartitionState, committable, earliest_due, fetchable, plan
from backends.ports.cloudevents import to_record
from backends.ports.event_log import Attempt
from backends.ports.events import Record
from tests.consumers.fakes import event

ATTEMPT = Attempt(1, 9.0, 0.0, 0.0, "")


def records(partition: int, *offsets: int, broken: int = -1) -> list[Record]:
    new = to_record(event("e"))
    return [Record("t", partition, at, 0, new.key, new.value, () if at == broken else new.headers) for at in offsets]


def offsets(states: dict[tuple[str, int], PartitionState], fetched: list[Record]) -> list[tuple[int, int]]:
    return [(record.partition, record.offset) for record, _ in plan(fetched, states).batch]


def test_each_partition_stops_at_the_record_that_must_be_handled_alone() -> None:
    states = {("t", 0): PartitionState(0, 0, {1: ATTEMPT}), ("t", 1): PartitionState(5, 5)}
    fetched = [*records(0, 0, 1, 2), *records(1, 5, 6, 7, broken=6)]
    assert offsets(states, fetched) == [(0, 0), (1, 5)]
    stops = plan(fetched, states).stops
    assert (stops["t", 0].record.offset, stops["t", 0].attempt) == (1, ATTEMPT)
    assert stops["t", 1].record.offset == 6
    assert stops["t", 1].error is not None


def test_what_is_finished_blocked_or_nobodys_is_left_out() -> None:
    blocked = Blocked(records(1, 3)[0], ATTEMPT, 9.0)
    states = {("t", 0): PartitionState(2, 0), ("t", 1): PartitionState(3, 3, blocked=blocked)}
    assert offsets(states, [*records(0, 1, 2), *records(1, 3, 4), *records(2, 0)]) == [(0, 2)]


def test_a_partition_that_waits_is_not_fetched_and_is_committed_up_to_what_it_waits_for() -> None:
    blocked = Blocked(records(1, 3)[0], ATTEMPT, 9.0)
    states = {("t", 0): PartitionState(2, 2), ("t", 1): PartitionState(3, 1, blocked=blocked)}
    assert fetchable(states) == {("t", 0): 2}
    assert committable(states) == {("t", 1): 3}
    assert earliest_due(states) == 9.0
    states["t", 1].done(3)
    assert fetchable(states) == {("t", 0): 2, ("t", 1): 4}
    assert earliest_due(states) is None
