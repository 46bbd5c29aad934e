"""Redis as one thing: the link, and what is built on it. Made once, above the tree."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from backends.ports.limits import Limit
from backends.redis.cache import RedisCache
from backends.redis.limiter import RedisLimiter
from backends.redis.link import BUDGET_S, Link
from backends.redis.presence import RedisPresence


class RedisEngine:
    """Args:
    url: see `url.parse`. Raises RedisUrlError.
    prefix: of every key, so that several installations may share a server.
    namespace: of the cache: instances on one database share it, and nobody else.
    instance: a name that no other run of Weir has.
    limits: raises ValueError for some that cannot be counted.
    """

    def __init__(
        self, url: str, prefix: str, namespace: str, instance: str, limits: Sequence[Limit], budget: float = BUDGET_S
    ) -> None:
        self._link = Link(url, prefix, budget=budget)
        self.limiter = RedisLimiter(self._link, limits)
        self.cache = RedisCache(self._link, namespace)
        self.presence = RedisPresence(self._link, instance)

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Asyncio's loop must be open around it."""
        return self._link.opened()
