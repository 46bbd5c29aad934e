"""The listener of `cache.invalidate`: evicts what other instances and writers say has changed.

A broadcast: no group, no commits, read from the end. Whatever may have been missed (a start, an error, a gap,
an event that cannot be read) is answered by flushing everything: a cold cache is slow, a stale one is wrong.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec
import structlog
import trio

from actors.cache_manager.messages import FlushAll, Told
from actors.consumers.retry import RetryPolicy
from actors.consumers.sink import root_error
from actors.event_log.messages import Ends, Fetch
from actors.metrics import Metrics
from actors.runtime import Actor, ActorError, ActorStopped
from backends.ports.broadcast import Broadcast, Unheard
from backends.ports.entities import StoreUnavailable
from backends.ports.events import CACHE_INVALIDATE, Partition, Record

log = structlog.get_logger(__name__)


class Invalidation(msgspec.Struct, frozen=True):
    """The data of a `cache.invalidate` event: (kind, key) pairs."""

    keys: list[tuple[str, str]]


_decoder = msgspec.json.Decoder(Invalidation)

BRIEF_WAITS = RetryPolicy(cap=5.0)
"""Until it is heard again, the cache may be stale."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Told by the listener to itself. `owner`: the incarnation that fetched; another one's records are stale."""

    owner: "CacheInvalidation"
    records: tuple[Record, ...]


def event_id(record: Record) -> str:
    return next((value.decode(errors="replace") for name, value in record.headers if name == "ce_id"), "")


Ask = Callable[[str, Any, float], Awaitable[Any]]


class LogBroadcast:
    """The broadcast as the event log's actor gives it: appends wake the reader, so there is no silence to fear."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._positions: dict[Partition, int] = {}

    async def begin(self) -> Mapping[Partition, int]:
        self._positions = await self._ask("event_log", Ends(CACHE_INVALIDATE), 0.0)
        return dict(self._positions)

    async def read(self, limit: int, max_wait: float) -> Sequence[Record]:
        if not self._positions:
            # The topic does not exist yet: nothing can have been cached against it before it does.
            await trio.sleep(max_wait)
            ends: dict[Partition, int] = await self._ask("event_log", Ends(CACHE_INVALIDATE), 0.0)
            self._positions = dict.fromkeys(ends, 0)
            if not ends:
                return []
        message = Fetch(self._positions, limit, max_wait)
        records: Sequence[Record] = await self._ask("event_log", message, max_wait)
        for record in records:
            self._positions[record.topic, record.partition] = record.offset + 1
        return records


class CacheInvalidation(Actor[Heard]):
    """Reads the broadcast and tells `cache_manager`. Several events of one moment become one message.

    While nothing is heard (`Unheard`), this instance's own tier is flushed every *flush_every* seconds: what is cached
    in the meantime may be stale, too. The tier that instances share is flushed once, when it is heard again: there
    each writer evicts by itself.

    Args:
        broadcast: None: the event log's actor.
        max_wait: longest wait of a fetch, seconds.
        flush_every: what is read while nothing is heard is hardly older than that, seconds.
        policy: the waits while the log or the cache is away.
    """

    def __init__(
        self,
        *,
        metrics: Metrics,
        broadcast: Broadcast | None = None,
        policy: RetryPolicy = BRIEF_WAITS,
        batch: int = 500,
        max_wait: float = 1.0,
        ask_timeout: float = 10.0,
        flush_every: float = 0.5,
        rng: Random | None = None,
    ) -> None:
        self._policy = policy
        self._batch = batch
        self._max_wait = max_wait
        self._ask_timeout = ask_timeout
        self._flush_every = flush_every
        self._rng = rng or Random()
        self._broadcast = broadcast or LogBroadcast(self._ask)
        self._positions: dict[Partition, int] = {}
        self._lost = True
        self._unheard = trio.Event()
        if broadcast is not None:
            self._unheard.set()  # of what was said before this incarnation it knows nothing
        self._failures = 0
        self._heard = metrics.counter("weir_invalidations_total", "cache.invalidate events acted upon")
        self._flushes = metrics.counter(
            "weir_invalidation_flushes_total", "Flushes because events may have been missed"
        )

    async def on_start(self) -> None:
        self.spawn(self._listen)
        self.spawn(self._flush_while_unheard)

    async def handle(self, message: Heard) -> None:
        if message.owner is not self:
            return  # of an incarnation that is gone; this one flushed when it began
        try:
            await self._act(message.records)
            self._failures = 0
        except ActorError as error:
            self._lose(error)
        self.spawn(self._listen)

    async def _listen(self) -> None:
        """Read once; on the way back from an error flush first."""
        while True:
            try:
                if self._failures:
                    await trio.sleep(self._policy.delay(self._failures, self._rng.random()))
                if self._lost:
                    await self._start_over()
                records = await self._broadcast.read(self._batch, self._max_wait)
                break
            except (ActorError, StoreUnavailable) as error:
                self._lose(error)
        try:
            await self.ref.tell(Heard(self, tuple(records)))
        except ActorStopped:
            return

    async def _start_over(self) -> None:
        # In this order: what is published between the two is read, what came before is flushed.
        self._positions = dict(await self._broadcast.begin())
        await self._flush()
        self._lost = False
        self._unheard = trio.Event()

    async def _act(self, records: Sequence[Record]) -> None:
        """Evict what *records* name; flush instead when one is missing or cannot be read."""
        evictions: list[tuple[str, tuple[tuple[str, str], ...]]] = []
        flush = ""
        for record in records:
            partition = (record.topic, record.partition)
            expected = self._positions.get(partition, record.offset)
            if record.offset > expected:
                flush = f"a gap before {record.id}, expected offset {expected}"
            self._positions[partition] = record.offset + 1
            try:
                keys = tuple(_decoder.decode(record.value or b"").keys)
                if keys:
                    evictions.append((event_id(record), keys))
            except msgspec.MsgspecError as error:
                flush = f"{record.id} cannot be read: {error}"
        if flush:
            log.warning("invalidation.flush", reason=flush)
            await self._flush()
        elif evictions:
            await self._ask("cache_manager", Told(tuple(evictions)))
        self._heard.inc(by=len(records))

    async def _flush(self, *, shared: bool = True) -> None:
        await self._ask("cache_manager", FlushAll(shared))
        self._flushes.inc()

    async def _flush_while_unheard(self) -> None:
        """Beside the tries to hear again, which may take seconds each."""
        while True:
            await self._unheard.wait()
            try:
                await self._flush(shared=False)
            except ActorError as error:
                log.warning("invalidation.not_flushed", error=repr(root_error(error)))
            await trio.sleep(self._flush_every)

    def _lose(self, error: ActorError | StoreUnavailable) -> None:
        self._lost = True
        if isinstance(error, Unheard):
            self._unheard.set()
        self._failures += 1
        log.warning("invalidation.lost", error=repr(root_error(error)))

    async def _ask(self, id: str, message: Any, wait: float = 0.0) -> Any:
        return await self.lookup(id).ask(message, timeout=wait + self._ask_timeout)
