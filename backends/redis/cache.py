"""The second cache tier in Redis: entries of one epoch, filled by lease (Nishtala et al., NSDI '13, §3.2.1)."""

import math
import secrets
from collections.abc import Sequence

from backends.ports.shared import Fill, Hit, Lease, Name
from backends.redis.link import Link, Script

# Longer than a load may take, so that the one who has the lease is the one who fills.
LEASE_MS = 10_000
# Only that the epochs of namespaces nobody uses any more go away: a new one makes the cache cold once.
_EPOCH_MS = 30 * 86_400_000


class RedisCache:
    """`backends.ports.shared.SharedCache`. *namespace*: of the database that the entries come from."""

    def __init__(self, link: Link, namespace: str) -> None:
        self._link = link
        self._namespace = namespace
        self._epoch = link.key("epoch", namespace)
        self._read, self._fill = Script("read"), Script("fill")

    async def read(self, names: Sequence[Name]) -> list[Hit | Lease | None]:
        token = secrets.token_bytes(12)
        keys = [self._epoch, *map(self._key, names)]
        found = await self._link.run(self._read, keys, token, LEASE_MS, _new_epoch(), _EPOCH_MS)
        return [_entry(item, token) for item in found]

    async def fill(self, fills: Sequence[Fill]) -> list[bool]:
        keys = [self._epoch, *(self._key(fill.name) for fill in fills)]
        args: list[bytes | int] = []
        for fill in fills:
            args += (fill.lease.token, fill.value, max(1, math.floor(fill.ttl * 1000)))
        return [stored == 1 for stored in await self._link.run(self._fill, keys, *args)]

    async def evict(self, names: Sequence[Name]) -> None:
        await self._link.command("UNLINK", *map(self._key, names))

    async def renew(self) -> None:
        await self._link.command("SET", self._epoch, _new_epoch(), "PX", _EPOCH_MS)

    def _key(self, name: Name) -> bytes:
        return self._link.key("cache", self._namespace, *name)


def _new_epoch() -> bytes:
    # Random, not counted: a store that came back from an old copy must not count its way to an epoch that was.
    return secrets.token_hex(8).encode()


def _entry(item: object, token: bytes) -> Hit | Lease | None:
    if isinstance(item, list):
        return Hit(item[0], item[1] / 1000)
    return Lease(token) if item == 1 else None
