"""The actor of one endpoint (a webhook, a lane of the relay): works off what is due for it, one after the other.

Attempts are made in a spawned task, so a receiver that hangs delays no other endpoint and no stop. What is in
flight when the process dies is sent again under the same id: at-least-once, and the receiver can tell.
"""

import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec
import structlog

from actors.consumers.failure import Failure, failure_of, parse_failure
from actors.consumers.metrics import ConsumerMetrics
from actors.consumers.notification.consumer import GROUP
from actors.consumers.notification.deliveries_of import DISABLED, EMAIL, WEBHOOK, Webhook, webhook_of
from actors.consumers.notification.disabling import disable
from actors.consumers.notification.messages import Rested, Work
from actors.consumers.notification.outcomes import (
    Away,
    Failed,
    Gone,
    Outcome,
    Refused,
    Settled,
    Withdrawn,
    settle,
)
from actors.consumers.notification.senders import Senders, Slots
from actors.consumers.notification.settling import Settling
from actors.consumers.retry import DEFAULT_POLICY, RetryPolicy
from actors.consumers.sink import root_error
from actors.metrics import Metrics
from actors.runtime import Actor, ActorError
from actors.storage.messages import Read, Transact
from backends.ports.entities import Key
from backends.ports.stores import Delivery, DeliveryStore

log = structlog.get_logger(__name__)

FETCH = 32
"""The most deliveries looked up at once."""

_DISABLED = "the webhook is disabled"


class EndpointDeliveries(Actor[Work]):
    """Tells `deliveries` when it has `Rested`.

    Args:
        slots: shared by all endpoints.
        now: wall clock, Unix seconds: due times outlive the process.
        endpoint: given by the supervisor that starts it.
    """

    def __init__(
        self,
        store: DeliveryStore,
        senders: Senders,
        slots: Slots,
        endpoint: str,
        *,
        metrics: Metrics,
        policy: RetryPolicy = DEFAULT_POLICY,
        ask_timeout: float = 10.0,
        service: str = "weir",
        now: Callable[[], float] = time.time,
        rng: Random | None = None,
    ) -> None:
        self._store = store
        self._senders = senders
        self._slots = slots
        self._failing = False
        self._endpoint = endpoint
        self._policy = policy
        self._ask_timeout = ask_timeout
        self._service = service
        self._now = now
        self._rng = rng or Random()
        self._held_until = 0.0
        """The endpoint asked for a pause (Retry-After): it is meant for all that it gets."""
        self._gone: tuple[Webhook, Gone] | None = None
        """Who answered the last attempt with 410, as it was called."""
        self._working = self._again = False
        self._metrics = ConsumerMetrics(metrics, GROUP)
        self._counter = metrics.counter(
            "weir_deliveries_total", "Attempts to deliver, by how they ended", ("channel", "outcome")
        )

    async def on_start(self) -> None:
        self._settling = Settling(
            self._store,
            self.lookup("event_log"),
            self._metrics,
            self._policy,
            service=self._service,
            ask_timeout=self._ask_timeout,
            rng=self._rng,
        )
        self.ref.try_tell(Work())

    async def handle(self, message: Work) -> None:
        if self._working:
            self._again = True
            return
        self._working = True
        self.spawn(self._work)

    def describe(self) -> dict[str, Any]:
        return {"endpoint": self._endpoint, "working": self._working, "held_until": self._held_until}

    async def _work(self) -> None:
        while True:
            self._again = False
            while self._held_until <= self._now():
                due = await self._settling.insist(self._store.due, self._endpoint, self._now(), FETCH)
                if not due:
                    break
                await self._work_off(due)
            if not self._again:
                break
        self._working = False
        await self.lookup("deliveries").tell(Rested(self._endpoint, self._held_until))

    async def _work_off(self, due: Sequence[Delivery]) -> None:
        step = self._senders.email.batch if due[0].channel == EMAIL else 1
        for start in range(0, len(due), step):
            if self._held_until > self._now():
                return
            async with self._slots.failing if self._failing else self._slots.well:
                settled = await self._attempt(due[start : start + step])
            disabled = await self._disable()
            await self._settling.settle(settled)
            if disabled:
                await self._withdraw()
                return

    async def _disable(self) -> bool:
        """Disable the webhook that answered with 410, if one did; whether it is."""
        if self._gone is None:
            return False
        (webhook, outcome), self._gone = self._gone, None
        write = disable(webhook, str(outcome.failure), service=self._service, at=self._now())
        disabled: bool = await self._settling.insist(self.lookup("storage").ask, Transact(write), self._ask_timeout)
        return disabled

    async def _withdraw(self) -> None:
        """What waits for the disabled webhook; what is still added to it is seen one by one."""
        count = await self._settling.insist(self._store.withdraw, self._endpoint, self._now(), _DISABLED)
        self._counter.inc(WEBHOOK, "withdrawn", by=count)
        log.warning("deliveries.webhook_disabled", endpoint=self._endpoint, withdrawn=count)

    async def _attempt(self, deliveries: Sequence[Delivery]) -> list[Settled]:
        # Those exhausted before a restart, and perhaps not stored as dead letters yet, are not sent again.
        spent = [delivery for delivery in deliveries if delivery.attempts >= self._policy.attempts]
        fresh = [delivery for delivery in deliveries if delivery.attempts < self._policy.attempts]
        settled = [Settled(delivery, parse_failure(delivery.error)) for delivery in spent]
        for delivery, outcome in zip(fresh, await self._send(fresh) if fresh else (), strict=True):
            one = settle(delivery, outcome, self._policy, self._now(), self._rng.random())
            self._report(one.delivery, outcome)
            settled.append(one)
        return settled

    async def _send(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        channel = deliveries[0].channel
        try:
            if channel == EMAIL:
                return await self._senders.email.send(deliveries)
            if channel == WEBHOOK:
                return [await self._call(delivery) for delivery in deliveries]
        except Exception as error:
            log.exception("deliveries.sender_fault", endpoint=self._endpoint)
            return [Failed(failure_of(error))] * len(deliveries)
        return [Refused(Failure("UnknownChannel", channel))] * len(deliveries)

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
        if webhook.state == DISABLED:
            return Withdrawn(_DISABLED)
        outcome = await self._senders.webhooks.send(webhook, delivery)
        if isinstance(outcome, Gone):
            self._gone = webhook, outcome
        return outcome

    def _report(self, after: Delivery, outcome: Outcome) -> None:
        self._counter.inc(after.channel, type(outcome).__name__.lower())
        self._failing = isinstance(outcome, Failed)
        if isinstance(outcome, Failed) and outcome.retry_after:
            self._held_until = after.due_at
        if isinstance(outcome, Failed | Refused):
            self._metrics.failed_attempt()
        if after.error:
            log.warning(
                "deliveries.not_sent",
                delivery=after.id,
                endpoint=after.endpoint,
                attempt=after.attempts,
                error=after.error,
            )
