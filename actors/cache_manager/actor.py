"""The `cache_manager` actor: one load a key at a time around the tier of `store.py`, and that of `second_tier.py`.

Order in the mailbox is what makes it right: a load that was asked for after an invalidation begins after
it, because the invalidation took the older load out of the table of flights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

import structlog
import trio

from actors.cache_manager.lane import Lane
from actors.cache_manager.loaders import Loader
from actors.cache_manager.messages import ABSENT, MISS, FlushAll, GetMany, Invalidate, Load, Loaded
from actors.cache_manager.second_tier import Kept, SecondTier
from actors.cache_manager.store import LocalTier, Ticket
from actors.metrics import Metrics
from actors.runtime import Actor, ActorError, Later, Reject
from backends.ports.entities import StoreUnavailable
from backends.ports.shared import Lease

log = structlog.get_logger(__name__)

Message = GetMany | Load | Invalidate | FlushAll

_EVICT_AGAIN_S = 0.2


@dataclass(eq=False, slots=True)
class _Flight:
    """A load under way and who waits for it. `lease`: the right to fill the second tier with what it brings."""

    wanted: Load
    ticket: Ticket
    lease: Lease | None = None
    waiters: list[Later] = field(default_factory=list)


class CacheManager(Actor[Message]):
    """Answers `GetMany`, `Invalidate` and `FlushAll` at once, `Load` when its loader has. Safe under `retry_once`.

    A failed `Load` is a `Reject` whose `.error` is the loader's (the error of its `Reject`, else the
    exception), or `StoreUnavailable` when it took longer than *load_timeout* seconds. Errors are never cached.

    With a *second* tier a load asks there first, with all others of the moment in one round trip, and fills it.
    `Invalidate` and `FlushAll` are then answered when that tier has confirmed, or after its budget; until it has,
    this instance goes around it.
    """

    def __init__(
        self,
        tier: LocalTier,
        loaders: Mapping[str, Loader],
        metrics: Metrics,
        *,
        second: SecondTier | None = None,
        load_timeout: float = 5.0,
    ) -> None:
        self._tier = tier
        self._loaders = loaders
        self._load_timeout = load_timeout
        self._second = second
        self._asking = Lane(self.spawn, self._ask_second)
        self._filling = Lane(self.spawn, self._fill_second)
        self._evicting = Lane(self.spawn, self._evict_second)
        self._owing = False
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

        if second is not None:
            metrics.gauge(
                "weir_cache_unconfirmed_evictions",
                "Evictions that the shared tier has not confirmed.",
                (),
                lambda: {(): float(len(second.unconfirmed))},
            )

    async def on_start(self) -> None:
        self._tier.void_loads()
        if self._second is not None and self._second.unconfirmed:
            self._owe(self._second)

    def handle_batch(self, messages: list[Message]) -> list[Any]:
        return [self._handle(message) for message in messages]

    def _handle(self, message: Message) -> Any:
        match message:
            case GetMany(kind=kind, keys=keys):
                return self._get_many(kind, keys)
            case Load():
                return self._load(message)
            case Invalidate(keys=names):
                for name in names:
                    self._flights.pop(name, None)
                evicted = self._tier.invalidate(names)
                if self._second is None:
                    return evicted
                self._second.unconfirmed.add(names)
                return self._evicted(self._second, evicted)
            case FlushAll():
                self._flights.clear()
                self._tier.flush()
                if self._second is None or self._second.starts():
                    return None
                self._second.unconfirmed.add_everything()
                return self._evicted(self._second, None)
            case _:
                assert_never(message)

    def _get_many(self, kind: str, keys: tuple[str, ...]) -> list[Any]:
        now = self.clock()
        values = [self._tier.get(kind, key, now) for key in keys]
        for value in values:
            self._reads.inc(kind, "local", "miss" if value is MISS else "absent" if value is ABSENT else "hit")
        return values

    def _load(self, wanted: Load) -> Any:
        kind, key = wanted.kind, wanted.key
        # Another load may have filled it since the asker missed.
        value = self._tier.get(kind, key, self.clock())
        if value is not MISS:
            return value
        flight = self._flights.get((kind, key))
        if flight is None:
            loader = self._loaders[kind]
            flight = self._flights[kind, key] = _Flight(wanted, self._tier.begin_load(kind, key))
            if self._second is not None and self._second.holds((kind, key)):
                self._asking.add(flight)
            else:
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
                loaded = await loader(self.lookup, flight.wanted)
        except Reject as refusal:
            error = refusal.error
        except (ActorError, StoreUnavailable) as unavailable:
            error = unavailable
        except Exception as fault:
            log.exception("a cache loader failed", kind=ticket.kind)
            error = fault
        if loaded is not None:
            self._land(flight, loaded)
            return
        self._clear(flight)
        self._tier.abandon_load(ticket)
        self._loads.inc(ticket.kind, "failed")
        for later in flight.waiters:
            later.fail(error)

    def _land(self, flight: _Flight, loaded: Loaded, *, shared: bool = False) -> None:
        """Store and answer. Nothing here awaits, so no message can come between."""
        ticket = flight.ticket
        self._clear(flight)
        ttl = self._tier.finish_load(ticket, loaded, self.clock())
        if not shared:
            self._loads.inc(ticket.kind, "stored" if ttl else "discarded")
            if ttl and flight.lease is not None:
                self._filling.add(Kept((ticket.kind, ticket.key), flight.lease, loaded.value, ttl))
        answer = ABSENT if loaded.value is None else loaded.value
        for later in flight.waiters:
            later.answer(answer)

    def _clear(self, flight: _Flight) -> None:
        name = (flight.ticket.kind, flight.ticket.key)
        if self._flights.get(name) is flight:
            del self._flights[name]

    # The second tier.

    async def _ask_second(self, flights: list[_Flight]) -> None:
        """What it has lands; what it has not is loaded, each by a task of its own."""
        assert self._second is not None
        found = await self._second.read([(flight.ticket.kind, flight.ticket.key) for flight in flights])
        for flight, item in zip(flights, found, strict=True):
            kind = flight.ticket.kind
            if isinstance(item, Loaded):
                self._reads.inc(kind, "redis", "absent" if item.value is None else "hit")
                self._land(flight, item, shared=True)
            else:
                self._reads.inc(kind, "redis", "miss")
                flight.lease = item
                self.spawn(self._fly, flight, self._loaders[kind])

    async def _fill_second(self, kept: list[Kept]) -> None:
        assert self._second is not None
        await self._second.fill(kept)

    def _evicted(self, second: SecondTier, answer: Any) -> Any:
        """The answer to an eviction that *second* has yet to confirm."""
        if not second.reachable:
            self._owe(second)
            return answer
        later = self.later()
        self._evicting.add((later, answer))
        return later

    async def _evict_second(self, waiting: list[tuple[Later, Any]]) -> None:
        """Each of *waiting* was added to what is unconfirmed before this began."""
        assert self._second is not None
        if not await self._second.evict():
            self._owe(self._second)
        for later, answer in waiting:
            later.answer(answer)

    def _owe(self, second: SecondTier) -> None:
        """What is not confirmed is evicted again until it is."""
        if not self._owing:
            self._owing = True
            self.spawn(self._pay, second)

    async def _pay(self, second: SecondTier) -> None:
        while second.unconfirmed:
            await trio.sleep(_EVICT_AGAIN_S)
            await second.evict()
        self._owing = False
