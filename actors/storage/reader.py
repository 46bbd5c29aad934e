"""The `storage_reader` actor: reads of one moment as one query, and no read behind one that hangs."""

from collections import deque
from typing import Any

import structlog
import trio

from actors.metrics import Metrics
from actors.runtime import Actor, Later
from actors.storage.messages import Read
from actors.storage.writer import database_queries
from backends.ports.entities import EntityStore, Key, StoreUnavailable

log = structlog.get_logger(__name__)

Waiting = tuple[Key, Later]


class StorageReader(Actor[Read]):
    """Answers `Read` with the entity or None. Safe under `retry_once`.

    At most *concurrency* queries are under way; what comes meanwhile joins the next one, never one that has
    begun, so that a read sees every write that was answered before it was asked. `Reject.error` is
    `StoreUnavailable` (also after *read_timeout* seconds) or the exception of a query that failed.
    """

    def __init__(
        self, store: EntityStore, metrics: Metrics, *, concurrency: int = 8, read_timeout: float = 5.0, batch: int = 256
    ) -> None:
        self._store = store
        self._concurrency = concurrency
        self._read_timeout = read_timeout
        self._batch = batch
        self._queries = database_queries(metrics)
        self._waiting: deque[Waiting] = deque()
        self._under_way = 0

    async def handle_batch(self, messages: list[Read]) -> list[Any]:
        laters = []
        for message in messages:
            later = self.later()
            self._waiting.append((message.key, later))
            laters.append(later)
        self._start()
        return laters

    def _start(self) -> None:
        while self._waiting and self._under_way < self._concurrency:
            count = min(self._batch, len(self._waiting))
            self._under_way += 1
            self.spawn(self._query, [self._waiting.popleft() for _ in range(count)])

    async def _query(self, batch: list[Waiting]) -> None:
        keys = list(dict.fromkeys(key for key, _ in batch))
        error: Exception = StoreUnavailable(f"a read took longer than {self._read_timeout} s")
        found = None
        self._queries.inc()
        try:
            with trio.move_on_after(self._read_timeout):
                found = await self._store.read(keys)
        except StoreUnavailable as unavailable:
            error = unavailable
        except Exception as fault:
            log.exception("a read failed", keys=len(keys))
            error = fault
        if found is None:
            for _, later in batch:
                later.fail(error)
        else:
            by_key = dict(zip(keys, found, strict=True))
            for key, later in batch:
                later.answer(by_key[key])
        self._under_way -= 1
        self._start()
