"""The actor that works off deliveries: bounded, at most one attempt an endpoint at a time.

Each attempt is a spawned task, so a receiver that hangs delays no other. A delivery in flight when the process
dies is sent again with the same id: at-least-once, and the receiver can tell.
"""

import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import msgspec
import structlog
import trio

from actors.consumers.dead_letters import dead_letter
from actors.consumers.failure import Failure, failure_of, parse_failure
from actors.consumers.metrics import ConsumerMetrics
from actors.consumers.notification.consumer import GROUP
from actors.consumers.notification.deliveries_of import EMAIL, WEBHOOK, webhook_of
from actors.consumers.notification.email import EmailSender
from actors.consumers.notification.mail import mail_of
from actors.consumers.notification.messages import Backlog, Reset, Wake
from actors.consumers.notification.outcomes import (
    Away,
    Failed,
    Outcome,
    Refused,
    Settled,
    Withdrawn,
    attempt_of,
    settle,
)
from actors.consumers.notification.webhook import WebhookCaller
from actors.consumers.retry import DEFAULT_POLICY, RetryPolicy
from actors.consumers.sink import root_error
from actors.event_log.messages import Append, ReadRecord
from actors.metrics import Metrics
from actors.runtime import Actor, ActorError, Reject, Timer
from actors.storage.messages import Read
from backends.ports.entities import Key, StoreUnavailable
from backends.ports.event_log import Attempt
from backends.ports.events import Record
from backends.ports.stores import Delivery, DeliveryStore

log = structlog.get_logger(__name__)


class Deliveries(Actor[Wake | Reset | Backlog]):
    """Claims due rows of *store* and sends them.

    Args:
        concurrency: attempts under way at once, over all endpoints.
        now: wall clock, Unix seconds: due times outlive the process.
    """

    def __init__(
        self,
        store: DeliveryStore,
        webhooks: WebhookCaller,
        email: EmailSender,
        *,
        metrics: Metrics,
        policy: RetryPolicy = DEFAULT_POLICY,
        concurrency: int = 64,
        ask_timeout: float = 10.0,
        service: str = "weir",
        now: Callable[[], float] = time.time,
        rng: Random | None = None,
    ) -> None:
        self._store = store
        self._webhooks = webhooks
        self._email = email
        self._policy = policy
        self._concurrency = concurrency
        self._ask_timeout = ask_timeout
        self._service = service
        self._now = now
        self._rng = rng or Random()
        self._busy: set[str] = set()
        self._held: dict[str, float] = {}
        """Endpoints that asked for a pause (Retry-After), and until when: it is meant for all that they get."""
        self._outages = 0
        self._timer: Timer | None = None
        self._dead = ConsumerMetrics(metrics, GROUP)
        self._counter = metrics.counter(
            "weir_deliveries_total", "Attempts to deliver, by how they ended", ("channel", "outcome")
        )

    async def on_start(self) -> None:
        # Nothing is claimed here: a store that is away is no start failure.
        self.ref.try_tell(Wake())

    async def handle_batch(self, messages: list[Wake | Reset | Backlog]) -> list[Any]:
        results = [None if isinstance(message, Wake) else await self._answer(message) for message in messages]
        await self._claim()
        return results

    async def _answer(self, message: Reset | Backlog) -> int | Reject:
        try:
            if isinstance(message, Backlog):
                return await self._store.pending()
            return await self._store.reset(message.id, self._now())
        except StoreUnavailable as error:
            return Reject(error)

    async def _claim(self) -> None:
        """Start what is due and has a free slot; set the timer for what is due next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._now()
        self._held = {endpoint: until for endpoint, until in self._held.items() if until > now}
        try:
            if (free := self._concurrency - len(self._busy)) > 0:
                for delivery in await self._store.due(now, free, self._excluded()):
                    self._busy.add(delivery.endpoint)
                    self.spawn(self._deliver, delivery)
            due = await self._store.next_due(self._excluded())
        except StoreUnavailable as error:
            self._outages += 1
            log.warning("deliveries.store_away", error=str(error))
            self._timer = self.timer(self._policy.delay(self._outages, self._rng.random()), Wake())
            return
        self._outages = 0
        waits = [time - now for time in (due, *self._held.values()) if time is not None]
        if waits and len(self._busy) < self._concurrency:  # else the next attempt that ends wakes us
            self._timer = self.timer(max(0.0, min(waits)), Wake())

    def _excluded(self) -> list[str]:
        return sorted(self._busy | self._held.keys())

    # One delivery, in a task of its own.

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            await self._work_off(delivery)
        except Exception:
            # A fault of ours: this endpoint pauses, the others go on.
            log.exception("deliveries.fault", delivery=delivery.id, endpoint=delivery.endpoint)
            await trio.sleep(self._policy.cap)
        self._busy.discard(delivery.endpoint)
        self.ref.try_tell(Wake())

    async def _work_off(self, delivery: Delivery) -> None:
        if delivery.attempts >= self._policy.attempts:
            # Exhausted before a restart, and perhaps not stored as a dead letter yet.
            settled = Settled(delivery, parse_failure(delivery.error))
        else:
            outcome = await self._attempt(delivery)
            settled = settle(delivery, outcome, self._policy, self._now(), self._rng.random())
            self._report(settled.delivery, outcome)
        if settled.dead_letter is None:
            await self._insist(self._store.save, settled.delivery)
            return
        # Counted first, so that a restart from here on stores the dead letter instead of sending again.
        await self._insist(self._store.save, settled.delivery)
        await self._bury(settled.delivery, settled.dead_letter)
        await self._insist(self._store.save, msgspec.structs.replace(settled.delivery, state="dead"))

    async def _attempt(self, delivery: Delivery) -> Outcome:
        try:
            if delivery.channel == EMAIL:
                return await self._email.send(delivery)
            if delivery.channel == WEBHOOK:
                return await self._call(delivery)
        except Exception as error:
            log.exception("deliveries.sender_fault", delivery=delivery.id)
            return Failed(failure_of(error))
        return Refused(Failure("UnknownChannel", delivery.channel))

    async def _call(self, delivery: Delivery) -> Outcome:
        reader = self.lookup("storage_reader")
        try:
            entity = await reader.ask(Read(Key("webhook", delivery.endpoint)), timeout=self._ask_timeout)
        except ActorError as error:
            return Away(repr(root_error(error)))
        if entity is None:
            return Withdrawn("the webhook was deleted")
        try:
            webhook = webhook_of(entity)
        except msgspec.MsgspecError as error:
            return Refused(failure_of(error))
        return await self._webhooks.send(webhook, delivery)

    def _report(self, after: Delivery, outcome: Outcome) -> None:
        self._counter.inc(after.channel, type(outcome).__name__.lower())
        if isinstance(outcome, Failed) and outcome.retry_after:
            self._held[after.endpoint] = after.due_at
        if isinstance(outcome, Failed | Refused):
            self._dead.failed_attempt()
        if after.error:
            log.warning(
                "deliveries.not_sent",
                delivery=after.id,
                endpoint=after.endpoint,
                attempt=after.attempts,
                error=after.error,
            )

    async def _bury(self, delivery: Delivery, failure: Failure) -> None:
        """Store the dead letter; returns only when it is stored."""
        record = await self._insist(self._original, delivery)
        letter = dead_letter(
            record,
            group=GROUP,
            failure=failure,
            attempt=attempt_of(delivery) or Attempt(0, 0.0, 0.0, 0.0, ""),
            service=self._service,
            delivery_id=delivery.id,
            endpoint=_receiver(delivery),
        )
        await self._insist(self.lookup("event_log").ask, Append((letter,), durable=True), self._ask_timeout)
        self._dead.dead_letter()
        log.error("deliveries.dead_letter", delivery=delivery.id, topic=letter.topic, error=str(failure))

    async def _original(self, delivery: Delivery) -> Record:
        """The record of the event, or what is left of it when the log has dropped it."""
        topic, partition, offset = delivery.source.rsplit("/", 2)
        where = (topic, int(partition))
        record: Record | None = await self.lookup("event_log").ask(
            ReadRecord(where, int(offset)), timeout=self._ask_timeout
        )
        if record is not None:
            return record
        headers = (("ce_id", delivery.event_id.encode()), ("ce_type", delivery.event_type.encode()))
        return Record(topic, int(partition), int(offset), 0, None, delivery.payload, headers)

    async def _insist(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Call `fn(*args)` until the store or the log is there to answer. The endpoint waits meanwhile:
        an outcome that is not stored would be attempted again at once, and for ever."""
        failures = 0
        while True:
            try:
                return await fn(*args)
            except (ActorError, StoreUnavailable) as error:
                failures += 1
                log.error("deliveries.not_stored", error=repr(error), failures=failures)
                await trio.sleep(self._policy.delay(failures, self._rng.random()))


def _receiver(delivery: Delivery) -> str:
    """Who should have got it: the webhook's id, or the address."""
    if delivery.channel != EMAIL:
        return delivery.endpoint
    try:
        return mail_of(delivery).to
    except Exception:
        return delivery.endpoint
