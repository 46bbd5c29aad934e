"""What every event log promises."""

from itertools import count

import pytest

from backends.ports.event_log import Attempt, Topic
from backends.ports.events import NewRecord, Record
from backends.ports.groups import Commit
from tests.backends.conftest import Backend, OpenBackend, open_embedded
from tests.backends.kafka_log import opening

DAY = 86400.0
HEADERS = (("ce_id", b"1"), ("ce_id", b"2"), ("x", b""))


@pytest.fixture(scope="module", params=["embedded", pytest.param("kafka", marks=pytest.mark.engines)])
def open_backend(request: pytest.FixtureRequest) -> OpenBackend:
    return open_embedded if request.param == "embedded" else opening(request.getfixturevalue("kafka_broker"))


def record(value: str, *, topic: str = "t", key: bytes | None = b"k", partition: int | None = None) -> NewRecord:
    return NewRecord(topic, key, value.encode(), (), partition)


def values(records: list[Record]) -> list[str]:
    return [(r.value or b"").decode() for r in records]


async def everything(backend: Backend, topic: str = "t") -> list[Record]:
    return await backend.event_log.fetch(await backend.event_log.start_offsets(topic), 10_000)


async def three_partitions(backend: Backend, retention_s: float | None = None) -> None:
    await backend.event_log.ensure_topics([Topic("t", 3, retention_s)])


async def fill(backend: Backend, **partitions: int) -> None:
    """`p0=2` appends two records to partition 0 of topic t: 0.0 and 0.1."""
    await backend.event_log.append(
        [record(f"{name[1:]}.{n}", partition=int(name[1:])) for name, many in partitions.items() for n in range(many)],
        durable=False,
    )


async def test_a_record_comes_back_as_it_went_in(backend: Backend) -> None:
    await backend.event_log.append([NewRecord("t", b"k\0", b"\xff\0", HEADERS)], durable=True)
    assert await everything(backend) == [Record("t", 0, 0, int(backend.clock.now * 1000), b"k\0", b"\xff\0", HEADERS)]


async def test_no_key_and_no_value_are_not_empty_ones(backend: Backend) -> None:
    await backend.event_log.append([NewRecord("t", None, None), NewRecord("t", b"", b"")], durable=False)
    assert [(r.key, r.value) for r in await everything(backend)] == [(None, None), (b"", b"")]


async def test_an_unknown_topic_is_created_with_one_partition_and_no_expiry(backend: Backend) -> None:
    assert await backend.event_log.append([record("a"), record("b")], durable=False) == [(0, 0), (0, 1)]
    assert await backend.event_log.topics() == [Topic("t", 1, None)]


async def test_a_topic_keeps_its_partitions_and_takes_a_new_retention(backend: Backend) -> None:
    await backend.event_log.ensure_topics([Topic("t", 3, None), Topic("a", 1, 5.0)])
    await backend.event_log.ensure_topics([Topic("t", 8, DAY)])
    assert await backend.event_log.topics() == [Topic("a", 1, 5.0), Topic("t", 3, DAY)]


async def test_a_key_has_one_partition_and_keeps_its_order(backend: Backend) -> None:
    await three_partitions(backend)
    await backend.event_log.append([record(f"{n}", key=b"key") for n in range(3)], durable=False)
    places = await backend.event_log.append([record(f"{n}", key=b"key") for n in range(3, 6)], durable=False)
    assert len({partition for partition, _ in places}) == 1
    assert [offset for _, offset in places] == [3, 4, 5]
    assert values(await everything(backend)) == ["0", "1", "2", "3", "4", "5"]


async def test_keys_go_where_kafkas_default_partitioner_sends_them(backend: Backend) -> None:
    await three_partitions(backend)
    keys = {b"21": -973932308, b"foobar": -790332482, b"abc": 479470107}
    places = await backend.event_log.append([record("", key=key) for key in keys], durable=False)
    assert [partition for partition, _ in places] == [(hash & 0x7FFFFFFF) % 3 for hash in keys.values()]


async def test_records_without_a_key_are_spread(backend: Backend) -> None:
    await three_partitions(backend)
    for _ in range(3):
        await backend.event_log.append([record("x", key=None) for _ in range(20)], durable=False)
    ends = await backend.event_log.end_offsets("t")
    assert sum(ends.values()) == 60
    assert min(ends.values()) > 0


async def test_a_partition_can_be_named(backend: Backend) -> None:
    await three_partitions(backend)
    assert await backend.event_log.append([record("x", partition=2)], durable=False) == [(2, 0)]


@pytest.mark.parametrize("partition", [-1, 3])
async def test_an_append_is_all_or_nothing(backend: Backend, partition: int) -> None:
    await three_partitions(backend)
    with pytest.raises(ValueError):
        await backend.event_log.append([record("a", topic="new"), record("b", partition=partition)], durable=False)
    assert await everything(backend) == []
    assert await backend.event_log.append([record("c", topic="new")], durable=False) == [(0, 0)]


async def test_fetch_goes_on_from_the_positions(backend: Backend) -> None:
    await three_partitions(backend)
    await fill(backend, p0=3, p1=2)
    fetched = await backend.event_log.fetch({("t", 0): 2, ("t", 1): 1, ("t", 2): 0}, 10)
    assert sorted(values(fetched)) == ["0.2", "1.1"]
    assert await backend.event_log.fetch({("t", 0): 3}, 10) == []


async def test_fetch_of_the_unknown_finds_nothing(backend: Backend) -> None:
    assert await backend.event_log.fetch({("nothing", 0): 0}, 10) == []
    assert await backend.event_log.fetch({}, 10) == []


async def test_fetch_shares_its_limit_among_partitions(backend: Backend) -> None:
    await three_partitions(backend)
    await fill(backend, p0=100, p1=2, p2=100)
    fetched = await backend.event_log.fetch({("t", p): 0 for p in range(3)}, 30)
    counts = [sum(r.partition == p for r in fetched) for p in range(3)]
    assert counts == [14, 2, 14]


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_no_partition_starves(backend: Backend, limit: int) -> None:
    """However small the limit, and though partition 0 stays full, 1 and 2 are read within reasonable time."""
    await three_partitions(backend)
    await fill(backend, p0=60)
    backend.clock.now += 1
    await fill(backend, p1=1, p2=1)
    positions = {("t", p): 0 for p in range(3)}
    seen: set[int] = set()
    for call in count(1):
        backend.clock.now += 1
        await fill(backend, p0=limit)
        for r in await backend.event_log.fetch(positions, limit):
            positions["t", r.partition] = r.offset + 1
            seen.add(r.partition)
        if seen == {0, 1, 2}:
            break
        assert call < 100, f"only {seen} were read"


async def test_ends_and_starts_of_an_unknown_topic_are_empty(backend: Backend) -> None:
    assert await backend.event_log.end_offsets("t") == {}
    assert await backend.event_log.start_offsets("t") == {}
    assert await backend.event_log.committed("g", "t") == {}
    assert await backend.event_log.attempts("g", ("t", 0)) == {}
    assert await backend.event_log.read(("t", 0), 0) is None
    assert await backend.event_log.drop(("t", 0), [0]) == 0


async def test_ends_and_starts_cover_every_partition(backend: Backend) -> None:
    await three_partitions(backend)
    await fill(backend, p1=2)
    assert await backend.event_log.end_offsets("t") == {("t", 0): 0, ("t", 1): 2, ("t", 2): 0}
    assert await backend.event_log.start_offsets("t") == {("t", 0): 0, ("t", 1): 0, ("t", 2): 0}


async def test_groups_commit_apart(backend: Backend) -> None:
    await three_partitions(backend)
    await backend.event_log.append([record("x", topic="other")], durable=False)
    await backend.event_log.commit("a", {("t", 0): 5, ("t", 2): 1})
    await backend.event_log.commit("a", {("t", 0): 3, ("other", 0): 1})
    await backend.event_log.commit("b", {("t", 0): 9})
    assert await backend.event_log.committed("a", "t") == {("t", 0): 3, ("t", 2): 1}
    assert await backend.event_log.committed("b", "t") == {("t", 0): 9}
    assert await backend.event_log.committed("c", "t") == {}
    assert dict(await backend.event_log.groups()) == {"a": ["other", "t"], "b": ["t"]}


async def test_what_is_committed_beside_an_offset_comes_back_and_goes_with_the_next_commit(backend: Backend) -> None:
    await three_partitions(backend)
    await backend.event_log.commit("g", {("t", 0): 5, ("t", 1): 1}, {("t", 0): "w1:3:"})
    assert await backend.event_log.progress("g", "t") == {("t", 0): Commit(5, "w1:3:"), ("t", 1): Commit(1)}
    await backend.event_log.commit("g", {("t", 0): 6})
    assert await backend.event_log.progress("g", "t") == {("t", 0): Commit(6), ("t", 1): Commit(1)}
    assert await backend.event_log.progress("g", "unknown") == {}


async def test_a_commit_of_an_unknown_partition_commits_nothing(backend: Backend) -> None:
    await three_partitions(backend)
    with pytest.raises(ValueError):
        await backend.event_log.commit("g", {("t", 0): 1, ("t", 9): 1})
    assert await backend.event_log.committed("g", "t") == {}


async def test_a_commit_forgets_the_attempts_below_it(backend: Backend) -> None:
    await three_partitions(backend)
    first, second = Attempt(1, 10.5, 9.0, 9.0, "boom"), Attempt(2, 12.0, 9.0, 11.0, "boom again")
    for offset in (3, 4):
        await backend.event_log.save_attempt("g", ("t", 0), offset, first)
    await backend.event_log.save_attempt("g", ("t", 0), 4, second)
    await backend.event_log.save_attempt("g", ("t", 1), 3, first)
    await backend.event_log.save_attempt("h", ("t", 0), 3, first)
    assert await backend.event_log.attempts("g", ("t", 0)) == {3: first, 4: second}
    await backend.event_log.commit("g", {("t", 0): 4})
    assert await backend.event_log.attempts("g", ("t", 0)) == {4: second}
    assert await backend.event_log.attempts("g", ("t", 1)) == {3: first}
    assert await backend.event_log.attempts("h", ("t", 0)) == {3: first}


async def test_single_records_are_read_and_dropped(backend: Backend) -> None:
    await three_partitions(backend)
    await fill(backend, p1=4)
    found = await backend.event_log.read(("t", 1), 2)
    assert found is not None
    assert found.id == "t/1/2"
    assert await backend.event_log.drop(("t", 1), [1, 2, 99]) == 2
    assert await backend.event_log.drop(("t", 1), []) == 0
    assert await backend.event_log.read(("t", 1), 2) is None
    assert values(await everything(backend)) == ["1.0", "1.3"]
    assert (await backend.event_log.append([record("x", partition=1)], durable=False)) == [(1, 4)]
