"""The listener of `cache.invalidate`: evicts what other instances and writers say has changed.

A broadcast: no group, no commits, read from the end. Whatever may have been missed (a start, an error, a gap,
an event that cannot be read) is answered by flushing everything: a cold cache is slow, a stale one is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec
import structlog
import trio

from actors.cache_manager.messages import FlushAll, Invalidate
from actors.consumers.retry import RetryPolicy
from actors.consumers.sink import root_error
from actors.event_log.messages import Ends, Fetch
from actors.metrics import Metrics
from actors.runtime import Actor, ActorError, ActorStopped
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


class CacheInvalidation(Actor[Heard]):
    """Reads the broadcast and tells `cache_manager`. Several events of one moment become one message.

    Args:
        max_wait: longest wait of a fetch, seconds.
        policy: the waits while the log or the cache is away.
    """

    def __init__(
        self,
        *,
        metrics: Metrics,
        policy: RetryPolicy = BRIEF_WAITS,
        batch: int = 500,
        max_wait: float = 1.0,
        ask_timeout: float = 10.0,
        rng: Random | None = None,
    ) -> None:
        self._policy = policy
        self._batch = batch
        self._max_wait = max_wait
        self._ask_timeout = ask_timeout
        self._rng = rng or Random()
        self._positions: dict[Partition, int] = {}
        self._lost = True
        self._failures = 0
        self._heard = metrics.counter("weir_invalidations_total", "cache.invalidate events acted upon")
        self._flushes = metrics.counter(
            "weir_invalidation_flushes_total", "Flushes because events may have been missed"
        )

    async def on_start(self) -> None:
        self.spawn(self._listen)

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
        """Fetch once; on the way back from an error flush first."""
        while True:
            if self._failures:
                await trio.sleep(self._policy.delay(self._failures, self._rng.random()))
            try:
                if self._lost:
                    await self._start_over()
                records = await self._poll()
                break
            except ActorError as error:
                self._lose(error)
        try:
            await self.ref.tell(Heard(self, tuple(records)))
        except ActorStopped:
            return

    async def _start_over(self) -> None:
        # In this order: what is published between the two is read, what came before is flushed.
        self._positions = await self._ask("event_log", Ends(CACHE_INVALIDATE))
        await self._flush()
        self._lost = False

    async def _poll(self) -> Sequence[Record]:
        if not self._positions:
            # The topic does not exist yet: nothing can have been cached against it before it does.
            await trio.sleep(self._max_wait)
            ends: dict[Partition, int] = await self._ask("event_log", Ends(CACHE_INVALIDATE))
            self._positions = dict.fromkeys(ends, 0)
            if not ends:
                return []
        message = Fetch(self._positions, self._batch, self._max_wait)
        records: Sequence[Record] = await self._ask("event_log", message, self._max_wait)
        return records

    async def _act(self, records: Sequence[Record]) -> None:
        """Evict what *records* name; flush instead when one is missing or cannot be read."""
        keys: dict[tuple[str, str], None] = {}
        flush = ""
        for record in records:
            partition = (record.topic, record.partition)
            expected = self._positions.get(partition, record.offset)
            if record.offset > expected:
                flush = f"a gap before {record.id}, expected offset {expected}"
            self._positions[partition] = record.offset + 1
            try:
                keys |= dict.fromkeys(_decoder.decode(record.value or b"").keys)
            except msgspec.MsgspecError as error:
                flush = f"{record.id} cannot be read: {error}"
        if flush:
            log.warning("invalidation.flush", reason=flush)
            await self._flush()
        elif keys:
            await self._ask("cache_manager", Invalidate(tuple(keys)))
        self._heard.inc(by=len(records))

    async def _flush(self) -> None:
        await self._ask("cache_manager", FlushAll())
        self._flushes.inc()

    def _lose(self, error: ActorError) -> None:
        self._lost = True
        self._failures += 1
        log.warning("invalidation.lost", error=repr(root_error(error)))

    async def _ask(self, id: str, message: Any, wait: float = 0.0) -> Any:
        return await self.lookup(id).ask(message, timeout=wait + self._ask_timeout)
