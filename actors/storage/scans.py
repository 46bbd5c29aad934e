"""The `storage_scans` actor: long scans, one at a time, away from reads by key.

One at a time because a scan has one connection and one thread; the mailbox is the queue and its bound.
"""

import trio

from actors.metrics import Metrics
from actors.runtime import Actor, Reject
from actors.storage.messages import Scan
from backends.ports.entities import Entity, EntityStore, StoreUnavailable


class StorageScans(Actor[Scan]):
    """Answers `Scan` with a list of entities. Safe under `retry_once`.

    `Reject.error` is `StoreUnavailable`, also after *scan_timeout* seconds.
    """

    def __init__(self, store: EntityStore, metrics: Metrics, *, scan_timeout: float = 10.0) -> None:
        self._store = store
        self._scan_timeout = scan_timeout
        # Apart from the queries by key: a consumer scans too, and readers of that count look for cache misses.
        self._scans = metrics.counter("weir_database_scans_total", "Scans over entities, one a page.")

    async def handle(self, message: Scan) -> list[Entity]:
        self._scans.inc()
        try:
            with trio.move_on_after(self._scan_timeout):
                return await self._store.scan(message.kind, message.after, message.limit)
        except StoreUnavailable as error:
            raise Reject(error) from None
        raise Reject(StoreUnavailable(f"a scan took longer than {self._scan_timeout} s"))
