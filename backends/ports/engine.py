"""Where the composition root gets its adapters from: one engine, whichever it is."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from backends.ports.broadcast import Broadcast
from backends.ports.entities import EntityStore
from backends.ports.event_log import EventLog
from backends.ports.groups import GroupMember
from backends.ports.outbox import Outbox
from backends.ports.stores import AuditStore, DeliveryStore, SearchIndex


class EngineUnusable(Exception):
    """The engine cannot be used as it is configured, and waiting cures nothing. One line: what, and the cure."""


class Health(NamedTuple):
    """`reached`: it was found usable since the start. `problems`: why it cannot be used now, a line each."""

    reached: bool
    problems: tuple[str, ...] = ()


class Engine(Protocol):
    """Makes an adapter a call; all made before `opened` are open within it.

    `one_process`: its stores are this process's alone. `needs_asyncio`: `opened` is entered within an asyncio loop.
    """

    one_process: bool
    needs_asyncio: bool

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Entered also while the engine is away: it is then looked for until it is found, and `health` says so.

        Raises `EngineUnusable`.
        """
        ...

    def health(self) -> Health: ...
    def entities(self) -> EntityStore: ...
    def event_log(self) -> EventLog: ...
    def outbox(self) -> Outbox | None:
        """None: the log is in the database, and a write is in it when it is committed."""
        ...

    def members(self) -> Callable[[str, Sequence[str]], GroupMember] | None:
        """Makes a member of a group, the first argument, for topics. None: every group has one member, this process."""
        ...

    def broadcast(self) -> Broadcast | None:
        """What `cache.invalidate` is heard by. None: the event log itself, nobody else writes to it."""
        ...

    def audit(self) -> AuditStore: ...
    def search(self) -> SearchIndex: ...
    def deliveries(self) -> DeliveryStore: ...

    async def checkpoint(self) -> None:
        """The engine's own housekeeping, due about once a second."""
        ...
