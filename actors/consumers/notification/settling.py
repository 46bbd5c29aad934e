"""Storing how attempts ended: the outcome, and the dead letter of a delivery that was given up."""

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

import msgspec
import structlog
import trio

from actors.consumers.dead_letters import dead_letter
from actors.consumers.failure import Failure
from actors.consumers.metrics import ConsumerMetrics
from actors.consumers.notification.consumer import GROUP
from actors.consumers.notification.deliveries_of import EMAIL
from actors.consumers.notification.mail import mail_of
from actors.consumers.notification.outcomes import Settled, attempt_of
from actors.consumers.retry import RetryPolicy
from actors.event_log.messages import Append, ReadRecord
from actors.runtime import ActorError, Ref
from backends.ports.entities import StoreUnavailable
from backends.ports.event_log import Attempt
from backends.ports.events import Record
from backends.ports.stores import Delivery, DeliveryStore

log = structlog.get_logger(__name__)


class Settling:
    """Insists: it returns only when the store and the log have taken what it has for them. The endpoint waits
    meanwhile: an outcome that is not stored would be attempted again at once, and for ever."""

    def __init__(
        self,
        store: DeliveryStore,
        event_log: Ref[Any],
        metrics: ConsumerMetrics,
        policy: RetryPolicy,
        *,
        service: str,
        ask_timeout: float,
        rng: Random,
    ) -> None:
        self._store = store
        self._event_log = event_log
        self._metrics = metrics
        self._policy = policy
        self._service = service
        self._ask_timeout = ask_timeout
        self._rng = rng

    async def settle(self, settled: Sequence[Settled]) -> None:
        # Counted first, so that a restart from here on stores the dead letter instead of sending again.
        await self.insist(self._store.save, [one.delivery for one in settled])
        for one in settled:
            if one.dead_letter is not None:
                await self.bury(one.delivery, one.dead_letter)

    async def bury(self, delivery: Delivery, failure: Failure) -> None:
        """Store the dead letter, then that the delivery is one."""
        record = await self.insist(self._original, delivery)
        letter = dead_letter(
            record,
            group=GROUP,
            failure=failure,
            attempt=attempt_of(delivery) or Attempt(0, 0.0, 0.0, 0.0, ""),
            service=self._service,
            delivery_id=delivery.id,
            endpoint=_receiver(delivery),
            replays=delivery.replays,
        )
        await self.insist(self._event_log.ask, Append((letter,), durable=True), self._ask_timeout)
        self._metrics.dead_letter()
        log.error("deliveries.dead_letter", delivery=delivery.id, topic=letter.topic, error=str(failure))
        await self.insist(self._store.save, [msgspec.structs.replace(delivery, state="dead")])

    async def insist(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Call `fn(*args)` until the store or the log is there to answer."""
        failures = 0
        while True:
            try:
                return await fn(*args)
            except (ActorError, StoreUnavailable) as error:
                failures += 1
                log.error("deliveries.not_stored", error=repr(error), failures=failures)
                await trio.sleep(self._policy.delay(failures, self._rng.random()))

    async def _original(self, delivery: Delivery) -> Record:
        """The record of the event, or what is left of it when the log has dropped it."""
        topic, partition, offset = delivery.source.rsplit("/", 2)
        where = (topic, int(partition))
        record: Record | None = await self._event_log.ask(ReadRecord(where, int(offset)), timeout=self._ask_timeout)
        if record is not None:
            return record
        headers = (("ce_id", delivery.event_id.encode()), ("ce_type", delivery.event_type.encode()))
        return Record(topic, int(partition), int(offset), 0, None, delivery.payload, headers)


def _receiver(delivery: Delivery) -> str:
    """Who should have got it: the webhook's id, or the address."""
    if delivery.channel != EMAIL:
        return delivery.endpoint
    try:
        return mail_of(delivery).to
    except Exception:
        return delivery.endpoint
