"""The `cache_manager` actor: one load a key at a time around the tier of `store.py`.

Order in the mailbox is what makes it right: a load that was asked for after an invalidation begins after
it, because the invalidation took the older load out of the table of flights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

import structlog
import trio

from actors.cache_manager.loaders import Loader
from actors.cache_manager.messages import ABSENT, MISS, FlushAll, GetMany, Invalidate, Load
from actors.cache_manager.store import LocalTier, Ticket
from actors.metrics import Metrics
from actors.runtime import Actor, ActorError, Later, Reject
from backends.ports.entities import StoreUnavailable

log = structlog.get_logger(__name__)

Message = GetMany | Load | Invalidate | FlushAll


@dataclass(eq=False, slots=True)
class _Flight:
    """A load under way and who waits for it."""

    ticket: Ticket
    waiters: list[Later] = field(default_factory=list)


class CacheManager(Actor[Message]):
    """Answers `GetMany`, `Invalidate` and `FlushAll` at once, `Load` when its loader has. Safe under `retry_once`.

    A failed `Load` is a `Reject` whose `.error` is the loader's (the error of its `Reject`, else the
    exception), or `StoreUnavailable` when it took longer than *load_timeout* seconds. Errors are never cached.
    """

    def __init__(
        self, tier: LocalTier, loaders: Mapping[str, Loader], metrics: Metrics, *, load_timeout: float = 5.0
    ) -> None:
        self._tier = tier
        self._loaders = loaders
        self._load_timeout = load_timeout
        self._flights: dict[tuple[str, str], _Flight] = {}
        self._reads = metrics.counter(
            "weir_cache_reads_total",
            "Cache reads by outcome (hit, miss, absent: known not to exist).",
            ("kind", "tier", "outcome"),
        )
        self._loads = metrics.counter(
            "weir_cache_loads_total",
            "Loads by outcome (stored, discarded: not to be kept or overtaken by an invalidation, failed).",
            ("kind", "outcome"),
        )
        metrics.gauge(
            "weir_cache_entries",
            "Entries in memory.",
            ("kind", "sort"),
            lambda: {name: float(count) for name, count in tier.size().items()},
        )

    async def on_start(self) -> None:
        self._tier.void_loads()

    def handle_batch(self, messages: list[Message]) -> list[Any]:
        return [self._handle(message) for message in messages]

    def _handle(self, message: Message) -> Any:
        match message:
            case GetMany(kind=kind, keys=keys):
                return self._get_many(kind, keys)
            case Load(kind=kind, key=key):
                return self._load(kind, key)
            case Invalidate(keys=names):
                for name in names:
                    self._flights.pop(name, None)
                return self._tier.invalidate(names)
            case FlushAll():
                self._flights.clear()
                self._tier.flush()
                return None
            case _:
                assert_never(message)

    def _get_many(self, kind: str, keys: tuple[str, ...]) -> list[Any]:
        now = self.clock()
        values = [self._tier.get(kind, key, now) for key in keys]
        for value in values:
            self._reads.inc(kind, "local", "miss" if value is MISS else "absent" if value is ABSENT else "hit")
        return values

    def _load(self, kind: str, key: str) -> Any:
        # Another load may have filled it since the asker missed.
        value = self._tier.get(kind, key, self.clock())
        if value is not MISS:
            return value
        flight = self._flights.get((kind, key))
        if flight is None:
            loader = self._loaders[kind]
            flight = self._flights[kind, key] = _Flight(self._tier.begin_load(kind, key))
            self.spawn(self._fly, flight, loader)
        later = self.later()
        flight.waiters.append(later)
        return later

    async def _fly(self, flight: _Flight, loader: Loader) -> None:
        """Run one load to its end; in every case all who wait get an answer. Cancelled: they are in hand at a crash."""
        ticket = flight.ticket
        error: object = StoreUnavailable(f"loading a {ticket.kind} took longer than {self._load_timeout} s")
        loaded = None
        try:
            with trio.move_on_after(self._load_timeout):
                loaded = await loader(self.lookup, ticket.key)
        except Reject as refusal:
            error = refusal.error
        except (ActorError, StoreUnavailable) as unavailable:
            error = unavailable
        except Exception as fault:
            log.exception("a cache loader failed", kind=ticket.kind)
            error = fault
        # From here to the last answer nothing awaits: no message can come between.
        name = (ticket.kind, ticket.key)
        if self._flights.get(name) is flight:
            del self._flights[name]
        if loaded is None:
            self._tier.abandon_load(ticket)
            self._loads.inc(ticket.kind, "failed")
            for later in flight.waiters:
                later.fail(error)
            return
        stored = self._tier.finish_load(ticket, loaded, self.clock())
        self._loads.inc(ticket.kind, "stored" if stored else "discarded")
        answer = ABSENT if loaded.value is None else loaded.value
        for later in flight.waiters:
            later.answer(answer)
