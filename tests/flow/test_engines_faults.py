"""Two instances on real engines, one of which is killed, hangs or is cut off under load."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from statistics import quantiles

import httpx
import pytest
import trio

from tests.flow.freshness import Freshness
from tests.flow.installation import Installation, installed, is_whole, running
from tests.flow.load import Outcome, reader, writer
from tests.flow.published import entity_versions, in_order
from tests.flow.server import Server, eventually
from tests.flow.test_engines import check, user
from tests.flow.test_kill9 import counted

pytestmark = [pytest.mark.process, pytest.mark.engines, pytest.mark.long]

AFTER_S = 1.0
"""No read is older than this once everything is back."""
PAUSE_S = 0.03
"""Between two requests of a client: what is looked at is the fault, not how much fits in a machine."""
PATIENCE_S = 4.0
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def installed_once() -> Iterator[Installation]:
    with installed() as made:
        yield made


@pytest.fixture
def installation(installed_once: Installation) -> Iterator[Installation]:
    """Whole before and after."""
    installed_once.mend()
    yield installed_once
    installed_once.mend()


async def in_thread(function: Callable[..., object], *args: object) -> object:
    return await trio.to_thread.run_sync(function, *args)


class Load:
    """Writers at one instance and readers at the other, of the same users."""

    def __init__(self, one: Server, two: Server, token: str, ids: list[str]) -> None:
        self.one, self.two, self.token, self.ids = one, two, token, ids
        self.outcome, self.fresh = Outcome(), Freshness()

    @property
    def failures(self) -> list[str]:
        return self.outcome.failures + self.fresh.failures

    def longest(self) -> float:
        """Of all requests, seconds: shorter than any patience with an engine."""
        return max(self.outcome.read_latencies + self.fresh.latencies + self.outcome.write_latencies)

    def latencies(self) -> str:
        reads = quantiles(self.outcome.read_latencies + self.fresh.latencies, n=100)
        writes = quantiles(self.outcome.write_latencies, n=100)
        return f"p50, p99: reads {_ms(reads)}, writes {_ms(writes)}; longest {self.longest():.2f} s"


def _ms(cuts: list[float]) -> str:
    return f"{cuts[49] * 1000:.0f}, {cuts[98] * 1000:.0f} ms"


@asynccontextmanager
async def loaded(one: Server, two: Server, name: str) -> AsyncIterator[Load]:
    """For the length of the block."""
    token = await trio.to_thread.run_sync(one.token)
    with one.client(token) as client:
        ids = [user(client, "version 0") for _ in range(5)]
        others = [user(client, "other") for _ in range(5)]
    load = Load(one, two, token, ids)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.fresh.write, one.port, token, ids)
        nursery.start_soon(load.fresh.read, two.port, token, ids)
        for server in (one, two):
            nursery.start_soon(partial(reader, load.outcome, server.port, token, others, pause=PAUSE_S))
            nursery.start_soon(partial(writer, load.outcome, server.port, token, name, pause=PAUSE_S))
        await trio.sleep(1)
        yield load
        nursery.cancel_scope.cancel()


def everything_once(installation: Installation, load: Load) -> None:
    """Each acknowledged write is read, found and audited once, and published in order."""
    check([load.one, load.two], load.token, load.outcome.created)

    def whole() -> bool:
        versions = entity_versions(installation.kafka.bootstrap)
        for id in [*load.ids, *load.outcome.created]:
            assert in_order(versions[id]), (id, versions[id])
        return all(len(set(versions[id])) >= len(load.fresh.committed[id]) for id in load.ids)

    eventually(whole, 30, 0.5)


async def kafka_away(installation: Installation, seconds: float, record: Record) -> None:
    with installation.instances(2) as (one, two):
        async with loaded(one, two, f"away{seconds:.0f}") as load:
            await in_thread(installation.kafka.kill)
            gone = trio.current_time()
            await trio.sleep(seconds)
            async with httpx.AsyncClient() as client:
                degraded = [await client.get(f"{server.admin_url}/readyz") for server in (one, two)]
            assert {answer.status_code for answer in degraded} == {200}
            assert all("kafka.bootstrap" in answer.text for answer in degraded)
            installation.kafka.start(wait=False)  # not in a thread: the broker would die with it
            await in_thread(installation.kafka.wait)
            back = trio.current_time()
            for server in (one, two):
                await in_thread(eventually, lambda server=server: is_whole(server), 30)
            record("whole again after", f"{trio.current_time() - back:.1f} s")
            await trio.sleep(2)
        assert load.failures == []
        record("latencies", load.latencies())
        record("oldest read", f"away {load.fresh.oldest(gone, back):.2f} s, back {load.fresh.oldest(back):.2f} s")
        assert load.longest() < PATIENCE_S
        # Three seconds of silence until it is noticed, then half a second between two flushes.
        assert load.fresh.oldest(gone, back) < 3 + 0.5 + AFTER_S
        assert load.fresh.oldest(back) < AFTER_S
        await in_thread(everything_once, installation, load)
        await in_thread(every_read_audited, load)


def every_read_audited(load: Load) -> None:
    with load.one.client(load.token) as client:

        def audited() -> bool:
            reads = counted(client, "/audit", {"action": "user.read", "entity": f"user/{load.ids[0]}"}, "id")
            return reads.total() >= sum(id == load.ids[0] for _, id, _ in load.fresh.reads)

        eventually(audited, 30, 0.5)


async def test_kafka_away_slows_and_fails_no_request_and_loses_and_reorders_nothing(
    installation: Installation, record_property: Record
) -> None:
    await kafka_away(installation, 15, record_property)


@pytest.mark.long
async def test_kafka_away_for_a_minute(installation: Installation, record_property: Record) -> None:
    await kafka_away(installation, 60, record_property)


async def test_redis_hung_during_writes(installation: Installation, record_property: Record) -> None:
    with installation.instances(2) as (one, two):
        async with loaded(one, two, "hung") as load:
            installation.redis.pause()
            await trio.sleep(4)
            installation.redis.resume()
            back = trio.current_time()
            for server in (one, two):
                await in_thread(eventually, lambda server=server: is_whole(server), 10)
            record_property("whole again after", f"{trio.current_time() - back:.1f} s")
            await trio.sleep(2)
        assert load.failures == []
        record_property("latencies", load.latencies())
        assert load.longest() < PATIENCE_S
        assert load.fresh.oldest(back) < AFTER_S
        await in_thread(everything_once, installation, load)


async def test_redis_killed_and_back(installation: Installation, record_property: Record) -> None:
    with installation.instances(2) as (one, two):
        async with loaded(one, two, "killed") as load:
            installation.redis.kill9()
            await trio.sleep(4)
            await in_thread(installation.redis.start)
            back = trio.current_time()
            for server in (one, two):
                await in_thread(eventually, lambda server=server: is_whole(server), 5)
            record_property("whole again after", f"{trio.current_time() - back:.1f} s")
            await trio.sleep(2)
        assert load.failures == []
        assert load.fresh.oldest() < AFTER_S
        await in_thread(everything_once, installation, load)


async def test_postgres_restarted(installation: Installation, record_property: Record) -> None:
    with installation.instances(2) as (one, two):
        async with loaded(one, two, "restarted") as load:
            await in_thread(installation.postgres.stop)
            await trio.sleep(2)
            installation.postgres.start(wait=False)  # not in a thread: it would die with it
            await in_thread(installation.postgres.wait)
            back = trio.current_time()
            for server in (one, two):
                await in_thread(eventually, lambda server=server: is_whole(server), 5)
            record_property("whole again after", f"{trio.current_time() - back:.1f} s")
            await trio.sleep(2)
        # Others than cached reads are told to come back, and nothing else.
        assert [line for line in load.failures if " 503" not in line] == []
        assert not any(line.startswith("read") for line in load.outcome.failures), "a cached read was refused"
        assert load.fresh.oldest(back + AFTER_S) < AFTER_S
        await in_thread(everything_once, installation, load)


async def resets(installation: Installation) -> None:
    for _ in range(8):
        installation.kafka_proxy.reset()
        await trio.sleep(0.5)


async def refuses(installation: Installation) -> None:
    installation.kafka_proxy.reset(refuse=True)
    await trio.sleep(6)


async def swallows(installation: Installation) -> None:
    installation.kafka_proxy.blackhole()
    await trio.sleep(6)


async def is_late(installation: Installation) -> None:
    installation.kafka_proxy.delay = 0.4
    await trio.sleep(4)


@pytest.mark.parametrize("fault", [resets, refuses, swallows, is_late])
async def test_one_instance_whose_way_to_kafka_is_cut(
    installation: Installation, fault: Callable[[Installation], Awaitable[None]], record_property: Record
) -> None:
    one, two = installation.instance(), installation.instance(kafka=installation.kafka.proxied_bootstrap)
    with running(one, two):
        async with loaded(one, two, fault.__name__) as load:
            gone = trio.current_time()
            await fault(installation)
            installation.kafka_proxy.heal()
            back = trio.current_time()
            for server in (one, two):
                await in_thread(eventually, lambda server=server: is_whole(server), 30)
            record_property("whole again after", f"{trio.current_time() - back:.1f} s")
            await trio.sleep(2)
        record_property(
            "oldest read", f"cut {load.fresh.oldest(gone, back):.2f} s, back {load.fresh.oldest(back):.2f} s"
        )
        assert load.failures == []
        assert load.fresh.oldest(gone, back) < 3 + 0.5 + AFTER_S
        # What is on its way when the channel is back needs a moment to arrive.
        assert load.fresh.oldest(back + 0.5) < AFTER_S
        await in_thread(everything_once, installation, load)


async def test_one_instance_whose_way_to_redis_is_cut(installation: Installation, record_property: Record) -> None:
    """It cannot evict what the other reads there; the event makes the other do it."""
    one = installation.instance(redis=f"redis://127.0.0.1:{installation.redis_proxy.port}/0")
    two = installation.instance()
    with running(one, two):
        async with loaded(one, two, "cut") as load:
            installation.redis_proxy.blackhole()
            await trio.sleep(3)
            installation.redis_proxy.heal()
            installation.redis_proxy.reset()
            await in_thread(eventually, lambda: is_whole(one), 10)
            await trio.sleep(1)
        record_property("oldest read", f"{load.fresh.oldest():.2f} s")
        assert load.failures == []
        assert load.fresh.oldest() < AFTER_S
        await in_thread(everything_once, installation, load)
