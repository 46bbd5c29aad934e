"""The `notification` group: the generic consumer, given the ways to the webhooks and to the deliveries."""

import time
from collections.abc import Callable, Sequence
from random import Random

from actors.consumers.consumer import Consumer, Members
from actors.consumers.handler import DEFAULT_OPTIONS, ConsumerOptions
from actors.consumers.notification.handler import NotificationHandler
from actors.consumers.notification.mail import MailWriter
from actors.consumers.notification.messages import Wake
from actors.consumers.retry import DEFAULT_POLICY, RetryPolicy
from actors.consumers.trials import Trials
from actors.metrics import Metrics
from actors.storage.messages import Scan
from backends.ports.entities import Entity
from backends.ports.events import ENTITY_CHANGED
from backends.ports.stores import DeliveryStore

GROUP = "notification"


class NotificationConsumer(Consumer):
    """Consumes `entity.changed`. Asks `storage_scans` for the webhooks and tells `deliveries` to wake."""

    def __init__(
        self,
        store: DeliveryStore,
        mail: MailWriter,
        *,
        metrics: Metrics,
        policy: RetryPolicy = DEFAULT_POLICY,
        options: ConsumerOptions = DEFAULT_OPTIONS,
        service: str = "weir",
        now: Callable[[], float] = time.time,
        rng: Random | None = None,
        members: Members | None = None,
        trials: Trials | None = None,
    ) -> None:
        handler = NotificationHandler(store, mail, scan=self._scan, wake=self._wake, now=now)
        super().__init__(
            GROUP,
            (ENTITY_CHANGED,),
            handler,
            metrics=metrics,
            policy=policy,
            options=options,
            service=service,
            now=now,
            rng=rng,
            members=members,
            trials=trials,
        )

    async def _scan(self, after: str, limit: int) -> Sequence[Entity]:
        found: Sequence[Entity] = await self.lookup("storage_scans").ask(Scan("webhook", after, limit), timeout=10.0)
        return found

    def _wake(self) -> None:
        self.lookup("deliveries").try_tell(Wake())
