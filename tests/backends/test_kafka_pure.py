"""What the Kafka adapter decides without Kafka: what is read ahead, and whether a consumer is stuck."""

from hypothesis import given
from hypothesis import strategies as st

from backends.kafka.buffer import Buffer
from backends.kafka.watchdog import Progress
from backends.ports.events import Partition, Record

A: Partition = ("t", 0)
B: Partition = ("t", 1)


def records(partition: Partition, first: int, last: int, size: int = 1) -> list[Record]:
    return [Record(*partition, offset, 0, None, b"x" * size, ()) for offset in range(first, last)]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sampled_from([A, B]), st.integers(0, 9)),
            st.tuples(st.just("take"), st.sets(st.sampled_from([A, B])), st.integers(1, 9)),
            st.tuples(st.just("clear"), st.sampled_from([A, B]), st.just(0)),
        )
    )
)
def test_a_buffer_is_a_queue_a_partition(history: list[tuple[str, object, int]]) -> None:
    buffer = Buffer(high=6)
    model: dict[Partition, list[int]] = {A: [], B: []}
    ends = {A: 0, B: 0}
    for what, where, number in history:
        if what == "take":
            taken = buffer.take(number, where)  # type: ignore[arg-type]
            assert len(taken) == min(number, sum(len(model[p]) for p in where))  # type: ignore[attr-defined]
            for record in taken:
                assert model[record.topic, record.partition].pop(0) == record.offset
        elif what == "add":
            buffer.add(where, records(where, ends[where], ends[where] + number))  # type: ignore[arg-type,index]
            model[where] += range(ends[where], ends[where] + number)  # type: ignore[index]
            ends[where] += number  # type: ignore[index]
        else:
            buffer.clear([where])  # type: ignore[list-item]
            model[where] = []  # type: ignore[index]
        assert len(buffer) == sum(map(len, model.values()))
        for partition, held in model.items():
            assert buffer.holds(partition) == bool(held)
            assert not buffer.full(partition) or len(held) > 3
            assert buffer.full(partition) or len(held) < 6


def test_a_partition_that_is_full_has_room_again_at_half() -> None:
    buffer = Buffer(high=10, high_bytes=1000)
    buffer.add(A, records(A, 0, 10))
    assert (buffer.full(A), buffer.full(B)) == (True, False)
    buffer.take(4, {A})
    assert buffer.full(A)
    buffer.take(1, {A})
    assert not buffer.full(A)
    buffer.add(B, records(B, 0, 2, 500))
    assert buffer.full(B)


def test_nobody_is_served_twice_before_the_others() -> None:
    buffer = Buffer()
    buffer.add(A, records(A, 0, 100))
    buffer.add(B, records(B, 0, 100))
    assert [r.partition for r in buffer.take(4, {A, B})] == [0, 0, 1, 1]
    assert [r.partition for _ in range(4) for r in buffer.take(1, {A, B})] == [0, 1, 0, 1]


def test_a_partition_that_stands_still_though_there_is_more_is_stuck() -> None:
    progress = Progress(still=60, unassigned=90)
    assert progress.look({A: 5, B: 7}, 0) == ""
    assert progress.look({A: 5, B: 8}, 59) == ""
    assert progress.look({A: 5, B: 9}, 61) == "t/0 stands at 5 for 61 s though there is more"
    assert progress.look({B: 9}, 62) == ""  # A has caught up
    assert progress.look({A: 5, B: 10}, 130) == ""  # and is behind since now


def test_what_stood_still_while_the_brokers_were_away_is_not_stuck() -> None:
    progress = Progress(still=60, unassigned=90)
    progress.look({A: 5}, 0)
    progress.away(50)
    assert progress.look({A: 5}, 100) == ""
    assert progress.look({A: 5}, 161) != ""


def test_a_rebalance_that_does_not_end_is_stuck() -> None:
    progress = Progress(still=60, unassigned=90)
    progress.rejoining(0)
    assert progress.look({}, 89) == ""
    assert progress.look({}, 91) == "no partitions for 91 s"
    progress.away(100)
    assert progress.look({}, 180) == ""
    progress.joined()
    assert progress.look({}, 1_000) == ""
