"""What a cache tier promises: the one in process, the one in Redis, and the fake that actors are tested with.

The race that a tier must close: a reader misses and reads version 1; a writer commits version 2 and evicts; the
reader's late fill must not bring version 1 back.
"""

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.cache_manager.messages import MISS, Loaded
from actors.cache_manager.store import KindPolicy, LocalTier
from backends.asyncio_bridge import asyncio_loop
from backends.ports.shared import Fill, Hit, Lease, Name, SharedCache
from backends.redis.engine import RedisEngine
from tests.backends.shared_fakes import MemoryCache
from tests.engines.redis import RedisServer

A, B = ("user", "a"), ("user", "b")
_prefixes = itertools.count()


class Local:
    """`LocalTier` as a `SharedCache`: its tickets are leases, of which the last one counts."""

    def __init__(self) -> None:
        self.tier = LocalTier({"user": KindPolicy(ttl=1e6, jitter=0)}, Random(1))
        self.tickets: dict[bytes, Any] = {}

    async def read(self, names: Sequence[Name]) -> list[Hit | Lease | None]:
        return [self._read(name) for name in names]

    def _read(self, name: Name) -> Hit | Lease:
        value = self.tier.get(*name, trio.current_time())
        if value is not MISS:
            return Hit(value, 1.0)
        lease = Lease(b"%d" % len(self.tickets))
        self.tickets[lease.token] = self.tier.begin_load(*name)
        return lease

    async def fill(self, fills: Sequence[Fill]) -> list[bool]:
        now = trio.current_time()
        return [
            self.tier.finish_load(self.tickets[fill.lease.token], Loaded(fill.value, fill.ttl), now) > 0
            for fill in fills
        ]

    async def evict(self, names: Sequence[Name]) -> None:
        self.tier.invalidate(names)

    async def renew(self) -> None:
        self.tier.flush()


Open = Callable[[], AbstractAsyncContextManager[SharedCache]]


@pytest.fixture(params=["embedded", "fake", pytest.param("redis", marks=pytest.mark.engines)])
def opened(request: pytest.FixtureRequest) -> Open:
    if request.param != "redis":
        make: Callable[[], SharedCache] = Local if request.param == "embedded" else MemoryCache

        @asynccontextmanager
        async def here() -> AsyncIterator[SharedCache]:
            yield make()

        return here
    server: RedisServer = request.getfixturevalue("redis_server")

    @asynccontextmanager
    async def there() -> AsyncIterator[SharedCache]:
        engine = RedisEngine(server.url, f"cache-{next(_prefixes)}", "db", "test", (), budget=5.0)
        async with asyncio_loop(), engine.opened():
            yield engine.cache

    return there


async def lease(cache: SharedCache, name: Name) -> Lease:
    (item,) = await cache.read([name])
    assert isinstance(item, Lease)
    return item


async def value(cache: SharedCache, name: Name) -> bytes | None:
    (item,) = await cache.read([name])
    return item.value if isinstance(item, Hit) else None


async def test_who_misses_may_fill_and_then_everybody_reads(opened: Open) -> None:
    async with opened() as cache:
        a, b = await cache.read([A, B])
        assert isinstance(a, Lease)
        assert isinstance(b, Lease)
        assert await cache.fill([Fill(A, a, b"1", 60.0)]) == [True]
        found = await cache.read([A, A])
        assert [item.value for item in found if isinstance(item, Hit)] == [b"1", b"1"]
        assert await cache.fill([Fill(B, b, b"\0\xff=?", 60.0)]) == [True]
        assert await value(cache, B) == b"\0\xff=?"


async def test_a_lease_fills_once(opened: Open) -> None:
    async with opened() as cache:
        mine = await lease(cache, A)
        assert await cache.fill([Fill(A, mine, b"1", 60.0)]) == [True]
        assert await cache.fill([Fill(A, mine, b"2", 60.0)]) == [False]
        assert await value(cache, A) == b"1"


async def test_of_two_who_miss_at_most_one_fills(opened: Open) -> None:
    async with opened() as cache:
        first = await lease(cache, A)
        (second,) = await cache.read([A])
        fills = [Fill(A, item, b"v", 60.0) for item in (first, second) if isinstance(item, Lease)]
        stored = [await cache.fill([fill]) for fill in fills]
        assert stored.count([True]) == 1


@pytest.mark.parametrize("how", ["evict", "renew"])
async def test_an_eviction_takes_entries_and_voids_leases(opened: Open, how: str) -> None:
    async with opened() as cache:
        await cache.fill([Fill(A, await lease(cache, A), b"old", 60.0)])
        late = await lease(cache, B)
        await (cache.renew() if how == "renew" else cache.evict([A, B]))
        assert await cache.fill([Fill(B, late, b"old", 60.0)]) == [False]
        assert [await value(cache, name) for name in (A, B)] == [None, None]
        await cache.evict([A, ("user", "never there")])
        assert await cache.fill([Fill(A, await lease(cache, A), b"new", 60.0)]) == [True]
        assert await value(cache, A) == b"new"


async def test_an_eviction_leaves_the_others_alone(opened: Open) -> None:
    async with opened() as cache:
        for name in (A, B):
            await cache.fill([Fill(name, await lease(cache, name), name[1].encode(), 60.0)])
        await cache.evict([A])
        assert await value(cache, B) == b"b"


async def test_an_entry_ends_and_says_when(opened: Open) -> None:
    async with opened() as cache:
        await cache.fill([Fill(A, await lease(cache, A), b"1", 0.05)])
        (item,) = await cache.read([A])
        assert isinstance(item, Hit)
        assert 0 <= item.left <= 1.0
        await trio.sleep(0.06)
        assert await value(cache, A) is None


@pytest.mark.parametrize("key", ["", "ä:ö", "\0", "x" * 5000, "\ud800"])
async def test_any_key_is_a_key(opened: Open, key: str) -> None:
    async with opened() as cache:
        name = ("user", key)
        await cache.fill([Fill(name, await lease(cache, name), b"1", 60.0)])
        assert await value(cache, name) == b"1"


# -- The race, every way round

steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["look", "load", "fill"]), st.integers(0, 2), st.sampled_from([A, B])),
        st.tuples(st.sampled_from(["commit", "evict"]), st.just(0), st.sampled_from([A, B])),
        st.just(("renew", 0, A)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=steps)
async def test_no_read_is_older_than_the_last_confirmed_eviction(
    opened: Open, plan: list[tuple[str, int, Name]]
) -> None:
    """Three readers, each in the midst of looking, loading or filling, beside a writer that commits and then evicts.

    The oracle: what was committed when the last eviction of the name was confirmed.
    """
    committed = {A: 0, B: 0}
    evicted = dict(committed)
    leases: dict[tuple[int, Name], Lease] = {}
    loaded: dict[tuple[int, Name], int] = {}
    async with opened() as cache:
        for what, who, name in plan:
            match what:
                case "commit":
                    committed[name] += 1
                case "evict":
                    await cache.evict([name])
                    evicted[name] = committed[name]
                case "renew":
                    await cache.renew()
                    evicted = dict(committed)
                case "look":
                    (item,) = await cache.read([name])
                    if isinstance(item, Hit):
                        assert evicted[name] <= int(item.value) <= committed[name]
                    elif item is not None:
                        leases[who, name] = item
                        loaded.pop((who, name), None)
                case "load" if (who, name) in leases:
                    loaded[who, name] = committed[name]
                case "fill" if (who, name) in loaded:
                    fill = Fill(name, leases.pop((who, name)), b"%d" % loaded.pop((who, name)), 60.0)
                    await cache.fill([fill])
