"""The shared store in memory, for tests of what uses it; held to the same suite as the real one. And its failures."""

import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from backends.ports.shared import Beat, Fill, Hit, Lease, Name, SharedStoreAway

BUDGET = 0.05
LEASE_S = 10.0


class MemoryCache:
    """`SharedCache`; entries live by trio's clock. `fault` comes before each call; `calls` tells them."""

    def __init__(self) -> None:
        self.entries: dict[Name, tuple[bytes, float]] = {}
        self.leases: dict[Name, tuple[bytes, float]] = {}
        self.calls: list[tuple[str, Any]] = []
        self.fault: Callable[[], Awaitable[None]] | None = None
        self._tokens = itertools.count()

    async def read(self, names: Sequence[Name]) -> list[Hit | Lease | None]:
        await self._called("read", tuple(names))
        return [self._read(name, trio.current_time()) for name in names]

    async def fill(self, fills: Sequence[Fill]) -> list[bool]:
        await self._called("fill", tuple(fill.name for fill in fills))
        return [self._fill(fill, trio.current_time()) for fill in fills]

    async def evict(self, names: Sequence[Name]) -> None:
        await self._called("evict", tuple(names))
        for name in names:
            self.entries.pop(name, None)
            self.leases.pop(name, None)

    async def renew(self) -> None:
        await self._called("renew", None)
        self.entries.clear()
        self.leases.clear()

    def _read(self, name: Name, now: float) -> Hit | Lease | None:
        value, until = self.entries.get(name, (b"", 0.0))
        if now < until:
            return Hit(value, until - now)
        if now < self.leases.get(name, (b"", 0.0))[1]:
            return None
        token = b"%d" % next(self._tokens)
        self.leases[name] = token, now + LEASE_S
        return Lease(token)

    def _fill(self, fill: Fill, now: float) -> bool:
        token, until = self.leases.get(fill.name, (b"", 0.0))
        if token != fill.lease.token or now >= until:
            return False
        del self.leases[fill.name]
        self.entries[fill.name] = fill.value, now + fill.ttl
        return True

    async def _called(self, what: str, names: Any) -> None:
        self.calls.append((what, names))
        await trio.lowlevel.checkpoint()
        if self.fault is not None:
            await self.fault()


async def hangs() -> None:
    """As a store that answers nothing: the budget ends it."""
    await trio.sleep(BUDGET)
    raise SharedStoreAway("no answer within 50 ms")


async def refuses() -> None:
    raise SharedStoreAway("connection refused")


async def is_another() -> None:
    raise SharedStoreAway("another server", lost=True)


class MemoryPresence:
    """`Presence`; `instances` and `witnesses` are what it answers, `fault` comes before."""

    place = "redis://memory"

    def __init__(self) -> None:
        self.fault: Callable[[], Awaitable[None]] | None = None
        self.instances, self.witnesses = 1, 0
        self.beats: list[bool] = []
        self.left = False

    async def beat(self, *, accept: bool) -> Beat:
        self.beats.append(accept)
        await trio.lowlevel.checkpoint()
        if self.fault is not None:
            await self.fault()
        return Beat(self.instances, self.witnesses)

    async def leave(self) -> None:
        self.left = True
