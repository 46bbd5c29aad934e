"""The `storage` actor: the one writer. What queued up while a transaction was made durable is the next one."""

from collections.abc import Sequence
from typing import Any

import structlog

from actors.event_log.messages import Appended
from actors.metrics import Counter, Metrics
from actors.runtime import Actor, Reject
from actors.storage.messages import Transact
from backends.ports.entities import Decision, Entity, EntityStore, Refused, StoreUnavailable, Write

log = structlog.get_logger(__name__)


class StorageWriter(Actor[Transact]):
    """Answers `Transact` with the decision's answer, once durable. To be run with `on_crash="fail"`.

    `Reject.error` is the error of a `Refused` decision; `StoreUnavailable` (it may have been committed); or the
    exception of a decision that failed, which costs the other writes of its transaction nothing.
    """

    def __init__(self, store: EntityStore, metrics: Metrics, *, event_log: str = "event_log") -> None:
        self._store = store
        self._event_log = event_log
        self._queries = database_queries(metrics)
        self._writes = metrics.counter(
            "weir_storage_writes_total", "Writes by outcome (committed, refused, failed, unavailable).", ("outcome",)
        )

    async def handle_batch(self, messages: list[Transact]) -> list[Any]:
        topics: set[str] = set()
        self._queries.inc()
        try:
            outcomes = await self._store.transact([observed(message.write, topics) for message in messages])
        except StoreUnavailable as error:
            self._writes.inc("unavailable", by=len(messages))
            return [Reject(error) for _ in messages]
        if topics:
            # A full mailbox is no loss: whoever waits for events asks again after its own max_wait.
            self.lookup(self._event_log).try_tell(Appended(frozenset(topics)))
        return [self._result(outcome) for outcome in outcomes]

    def _result(self, outcome: Any) -> Any:
        if isinstance(outcome, Refused):
            self._writes.inc("refused")
            return Reject(outcome.error)
        if isinstance(outcome, Exception):
            log.error("a write's decision failed", exc_info=outcome)
            self._writes.inc("failed")
            return Reject(outcome)
        self._writes.inc("committed")
        return outcome


def observed(write: Write, topics: set[str]) -> Write:
    """*write*, noting the topics of its events. A retried transaction notes more than it appends: a vain wake-up."""

    def decide(entities: Sequence[Entity | None], versions: Sequence[int]) -> Decision:
        decision = write.decide(entities, versions)
        for event in decision.events:
            topics.add(event.topic)
        return decision

    return Write(write.keys, decide)


def database_queries(metrics: Metrics) -> Counter:
    """The counter that the storage actors share: transactions, batched reads and scans, one each."""
    return metrics.counter("weir_database_queries_total", "Queries and transactions on the entity store.")
