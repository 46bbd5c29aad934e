"""Heartbeats in a sorted set: how many instances share a limit."""

from backends.ports.shared import Beat, SharedStoreAway
from backends.redis.link import Link, Script

WITHIN_S = 1.0
ALIVE_MS = 5_000


class RedisPresence:
    """`backends.ports.shared.Presence`. *instance*: a name that no other run of Weir has."""

    def __init__(self, link: Link, instance: str) -> None:
        self._link = link
        self._instance = instance.encode()
        self._members = link.key("instances")
        self._script = Script("beat")
        self._first_ms = 0

    @property
    def place(self) -> str:
        return self._link.place

    async def beat(self, *, accept: bool) -> Beat:
        if accept:
            self._first_ms = 0
            await self._link.connect(accept=True, within=WITHIN_S)
        args = (self._instance, ALIVE_MS, self._first_ms)
        now, instances, witnesses = await self._link.run(self._script, [self._members], *args, within=WITHIN_S)
        self._first_ms = self._first_ms or now
        return Beat(instances, witnesses)

    async def leave(self) -> None:
        try:
            await self._link.command("ZREM", self._members, self._instance)
        except SharedStoreAway:
            pass
