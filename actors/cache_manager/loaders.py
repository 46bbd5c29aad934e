"""Loaders on the tree's own actors: entities through `storage_reader`, tokens through the Auth Service.

A loader gets the tree's lookup with each call, so that the composition root can name actors before there are any.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from actors.authenticator.messages import Introspect, Principal
from actors.cache_manager.messages import Load, Loaded
from actors.runtime import Ref
from actors.storage.messages import Read
from backends.ports.entities import Entity, Key

Lookup = Callable[[str], Ref[Any]]
Loader = Callable[[Lookup, Load], Awaitable[Loaded]]
"""What is wanted in, `Loaded` out. Raises `Reject` with a domain error, any `ActorError`, or `StoreUnavailable`."""


def entity_loader(kind: str, wall_clock: Callable[[], float], *, reader: str = "storage_reader") -> Loader:
    """Loads the `Entity` of *kind* whose id is the cache key; kept no longer than it lives."""

    async def load(lookup: Lookup, wanted: Load) -> Loaded:
        entity: Entity | None = await lookup(reader).ask(Read(Key(kind, wanted.key)))
        if entity is None or not entity.expires_at:
            return Loaded(entity)
        return Loaded(entity, entity.expires_at - wall_clock())

    return load


def token_loader(wall_clock: Callable[[], float], *, service: str = "oauth") -> Loader:
    """Loads the `Principal` of a token's digest; kept no longer than the token lives (RFC 7662 §4)."""

    async def load(lookup: Lookup, wanted: Load) -> Loaded:
        principal: Principal | None = await lookup(service).ask(Introspect(wanted.key, wanted.secret))
        if principal is None:
            return Loaded(None)
        return Loaded(principal, principal.expires_at - wall_clock())

    return load
