"""What an event log that deletes by itself promises. Kafka's brokers do it there: `purge` has nothing to do."""

from backends.ports.event_log import Topic
from backends.ports.events import NewRecord, Record
from tests.backends.conftest import Backend

DAY = 86400.0


async def three_partitions(backend: Backend, retention_s: float | None = None) -> None:
    await backend.event_log.ensure_topics([Topic("t", 3, retention_s)])


async def fill(backend: Backend, **partitions: int) -> None:
    """`p0=2` appends two records to partition 0 of topic t."""
    for name, many in partitions.items():
        await backend.event_log.append([NewRecord("t", b"k", b"x", (), int(name[1:]))] * many, durable=False)


async def everything(backend: Backend) -> list[Record]:
    return await backend.event_log.fetch(await backend.event_log.start_offsets("t"), 10_000)


async def test_purging_cuts_what_is_beyond_the_retention(backend: Backend) -> None:
    await three_partitions(backend, retention_s=DAY)
    await fill(backend, p0=3)
    backend.clock.now += DAY
    await fill(backend, p0=1, p1=1)
    assert await backend.event_log.purge(backend.clock.now + 1, 100) == 3
    assert (await backend.event_log.start_offsets("t"))["t", 0] == 3
    assert sorted(r.id for r in await everything(backend)) == ["t/0/3", "t/1/0"]
    assert sorted(r.id for r in await backend.event_log.fetch({("t", 0): 0}, 10)) == ["t/0/3"]
    assert (await backend.event_log.append([NewRecord("t", b"k", b"x", (), 0)], durable=False)) == [(0, 4)]


async def test_purging_takes_no_more_than_its_limit_at_a_time(backend: Backend) -> None:
    await three_partitions(backend, retention_s=DAY)
    await fill(backend, p0=3, p1=3)
    now = backend.clock.now + DAY + 1
    assert [await backend.event_log.purge(now, 4) for _ in range(3)] == [4, 2, 0]
    assert await everything(backend) == []


async def test_records_without_a_retention_stay(backend: Backend) -> None:
    await fill(backend, p0=3)
    assert await backend.event_log.purge(backend.clock.now + 1000 * DAY, 100) == 0


async def test_purging_keeps_what_a_group_has_not_read(backend: Backend) -> None:
    await three_partitions(backend, retention_s=DAY)
    await fill(backend, p0=5, p1=2)
    await backend.event_log.commit("slow", {("t", 0): 2})
    await backend.event_log.commit("fast", {("t", 0): 5, ("t", 1): 2})
    now = backend.clock.now + DAY + 1
    assert await backend.event_log.purge(now, 100) == 2
    assert await backend.event_log.start_offsets("t") == {("t", 0): 2, ("t", 1): 0, ("t", 2): 0}
    await backend.event_log.commit("slow", {("t", 0): 5, ("t", 1): 2})
    assert await backend.event_log.purge(now, 100) == 5
