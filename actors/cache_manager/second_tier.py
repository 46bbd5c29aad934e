"""The tier that instances share, as the cache manager uses it: values in, values out, and it never fails.

While it is away, or not to be believed, it has nothing and takes nothing. Made by the composition root, because the
evictions it owes outlive an incarnation.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
import trio

from actors.cache_manager.codec import Codec, Unreadable
from actors.cache_manager.messages import Loaded
from actors.cache_manager.unconfirmed import Unconfirmed
from actors.shared_store.standing import Standing
from backends.ports.shared import Fill, Hit, Lease, Name, SharedCache, SharedStoreAway

log = structlog.get_logger(__name__)

_NAMES_AT_ONCE = 1000


class Kept(NamedTuple):
    """A value to be filled, for *ttl* seconds."""

    name: Name
    lease: Lease
    value: Any
    ttl: float


class SecondTier:
    """*codecs*: by kind. Those it has none for are not kept here."""

    def __init__(
        self,
        cache: SharedCache,
        standing: Standing,
        codecs: Mapping[str, Codec],
        *,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._cache = cache
        self._standing = standing
        self._codecs = codecs
        self._clock = clock
        self._started = False
        self.unconfirmed = Unconfirmed()

    def starts(self) -> bool:
        """True the first time. The flush at the start of a process clears nothing here: whether what the others keep
        can be believed was decided when this instance joined."""
        first, self._started = not self._started, True
        return first

    def holds(self, name: Name) -> bool:
        """Whether it may be asked for *name* now, and told."""
        return self._standing.readable and name[0] in self._codecs and not self.unconfirmed.holds(name)

    @property
    def reachable(self) -> bool:
        """Whether an eviction can be confirmed now."""
        return self._standing.usable

    async def read(self, names: Sequence[Name]) -> list[Loaded | Lease | None]:
        """In one round trip: what each holds, else a lease to fill it, else None."""
        try:
            found = await self._cache.read(names)
        except SharedStoreAway as error:
            self._failed(error)
            return [None] * len(names)
        self._standing.answered()
        return [self._loaded(name, item) for name, item in zip(names, found, strict=True)]

    async def fill(self, kept: Sequence[Kept]) -> int:
        """In one round trip; returns how many are stored. What has been evicted since is not."""
        fills = [
            Fill(item.name, item.lease, self._codecs[item.name[0]].encode(item.value), item.ttl)
            for item in kept
            if self.holds(item.name)
        ]
        if not fills:
            return 0
        try:
            stored = await self._cache.fill(fills)
        except SharedStoreAway as error:
            self._failed(error)
            return 0
        self._standing.answered()
        return sum(stored)

    async def evict(self) -> bool:
        """Have all that is unconfirmed evicted; False: it was not, and is still owed."""
        while (eviction := self.unconfirmed.next(_NAMES_AT_ONCE)) is not None:
            if not self.reachable:
                return False
            try:
                await (self._cache.renew() if eviction.names is None else self._cache.evict(eviction.names))
            except SharedStoreAway as error:
                self._failed(error)
                return False
            self._standing.answered()
            self.unconfirmed.confirm(eviction)
        return True

    def _loaded(self, name: Name, item: Hit | Lease | None) -> Loaded | Lease | None:
        if not isinstance(item, Hit):
            return item
        try:
            return self._codecs[name[0]].decode(item.value, item.left)
        except Unreadable as error:
            log.warning("cache.unreadable", kind=name[0], problem=str(error))
            return None

    def _failed(self, error: SharedStoreAway) -> None:
        self._standing.failed(error, self._clock())
