"""Where the composition root gets its adapters from: one engine, whichever it is."""

from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from backends.ports.entities import EntityStore
from backends.ports.event_log import EventLog
from backends.ports.outbox import Outbox
from backends.ports.stores import AuditStore, DeliveryStore, SearchIndex


class EngineUnusable(Exception):
    """The engine cannot be used as it is configured, and waiting cures nothing. One line: what, and the cure."""


class Health(NamedTuple):
    """`reached`: it was found usable since the start. `problems`: why it cannot be used now, a line each."""

    reached: bool
    problems: tuple[str, ...] = ()


class Engine(Protocol):
    """Makes an adapter a call; all made before `opened` are open within it."""

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

    def audit(self) -> AuditStore: ...
    def search(self) -> SearchIndex: ...
    def deliveries(self) -> DeliveryStore: ...

    async def checkpoint(self) -> None:
        """The engine's own housekeeping, due about once a second."""
        ...
