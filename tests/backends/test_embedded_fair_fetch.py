"""How a fetch shares its limit, as a decision over lists."""

from hypothesis import example, given
from hypothesis import strategies as st

from backends.embedded.fair_fetch import fetch_fairly
from backends.ports.events import Partition, Record

SIZES = st.lists(st.integers(0, 30), max_size=8)


def log_of(sizes: list[int]) -> dict[Partition, list[Record]]:
    return {("t", p): [Record("t", p, offset, 0, None, None) for offset in range(n)] for p, n in enumerate(sizes)}


def fetch(log: dict[Partition, list[Record]], limit: int) -> list[Record]:
    def take(partition: Partition, offset: int, most: int) -> list[Record]:
        return log[partition][offset : offset + most]

    return fetch_fairly(dict.fromkeys(log, 0), limit, take)


@example([0, 0, 2], 2)  # more partitions than room, and most of them empty
@example([0, 9, 1, 0, 9], 7)  # a remainder smaller than the number of those who could still give
@given(SIZES, st.integers(0, 60))
def test_the_limit_is_used_up_and_never_passed(sizes: list[int], limit: int) -> None:
    assert len(fetch(log_of(sizes), limit)) == min(limit, sum(sizes))


@given(SIZES, st.integers(0, 60))
def test_each_partition_gives_a_prefix_in_order(sizes: list[int], limit: int) -> None:
    fetched = fetch(log_of(sizes), limit)
    for p in range(len(sizes)):
        offsets = [record.offset for record in fetched if record.partition == p]
        assert offsets == list(range(len(offsets)))


@given(SIZES.filter(bool), st.integers(1, 60))
def test_nobody_gets_less_than_an_equal_share_that_he_could_fill(sizes: list[int], limit: int) -> None:
    fetched = fetch(log_of(sizes), limit)
    for p, size in enumerate(sizes):
        assert sum(record.partition == p for record in fetched) >= min(size, limit // len(sizes))


def test_with_more_partitions_than_room_the_oldest_record_comes_first() -> None:
    log = {("t", p): [Record("t", p, 0, 100 - p, None, None)] for p in range(5)}
    assert [record.partition for record in fetch(log, 2)] == [4, 3]
