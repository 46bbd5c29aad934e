"""Changes of entities into deliveries: rows that the `deliveries` actor works off, however long that takes.

The consumer is done with an event when its rows are stored. So a slow receiver never holds up the log.
"""

from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from actors.consumers.dead_letters import origin_of
from actors.consumers.notification.deliveries_of import Webhook, webhook_deliveries, webhook_of
from actors.consumers.notification.mail import MailWriter
from actors.consumers.partitions import Delivered
from actors.consumers.retry import Permanent
from backends.ports.entities import Entity
from backends.ports.stores import Delivery, DeliveryStore

log = structlog.get_logger(__name__)

PAGE = 200

Scan = Callable[[str, int], Awaitable[Sequence[Entity]]]
"""Webhooks with ids above the first argument, by id, at most the second."""


class NotificationHandler:
    """Group `notification`. Redelivery is a no-op: a row's id follows from the event and the endpoint.

    Args:
        scan: reads the registered webhooks.
        wake: called after rows were added.
        now: Unix seconds.
    """

    def __init__(
        self,
        store: DeliveryStore,
        mail: MailWriter,
        *,
        scan: Scan,
        wake: Callable[[], object],
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._mail = mail
        self._scan = scan
        self._wake = wake
        self._now = now

    async def handle(self, events: Sequence[Delivered]) -> None:
        webhooks = await self._webhooks()
        now = self._now()
        rows: list[Delivery] = []
        failure: Permanent | None = None
        for record, event in events:
            # A replayed event is named by where it first was: its retry topic expires.
            source = "{}/{}/{}".format(*origin_of(record))
            try:
                rows += webhook_deliveries(event, source, webhooks, now)
            except msgspec.MsgspecError as error:
                raise Permanent(f"{record.id}: the data is not JSON: {error}") from error
            mails = self._mail.deliveries(event, source, now)
            rows += mails.rows
            failure = failure or mails.failure
        if rows:
            await self._store.add(rows)
            self._wake()
        if failure is not None:
            # A template that cannot say it keeps nobody else from being told. Given alone, it is the event's failure.
            raise failure

    async def _webhooks(self) -> list[Webhook]:
        """All of them, once a batch. One that cannot be read is logged and left out; it must not stop the rest."""
        found: list[Webhook] = []
        after = ""
        while True:
            page = await self._scan(after, PAGE)
            for entity in page:
                try:
                    found.append(webhook_of(entity))
                except msgspec.MsgspecError as error:
                    log.error("notification.malformed_webhook", webhook=entity.id, error=str(error))
            if len(page) < PAGE:
                return found
            after = page[-1].id
