"""A webhook that answered with 410 is disabled: the write, with its audit. Pure."""

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from actors.consumers.notification.deliveries_of import DISABLED, Webhook
from backends.ports.entities import Decision, Entity, Key, Write
from backends.ports.events import AUDIT, Event
from backends.ports.stores import AuditEntry


def disable(called: Webhook, reason: str, *, service: str, at: float) -> Write:
    """Answers whether the webhook is disabled, by this write or before it. Never refuses.

    One that is gone, or has another URL by now than the one that was *called*, stays as it is. *service* is who
    audits say did it, *at* Unix seconds.
    """

    def decide(entities: Sequence[Entity | None], _: Sequence[int]) -> Decision:
        entity = entities[0]
        if entity is None:
            return Decision(False)
        document: dict[str, Any] = msgspec.json.decode(entity.body)
        if document.get("state") == DISABLED or document["url"] != called.url:
            return Decision(document.get("state") == DISABLED)
        document |= {"state": DISABLED, "disabled_at": at, "disabled_reason": reason}
        put = msgspec.structs.replace(
            entity, version=entity.version + 1, updated_at=at, body=msgspec.json.encode(document)
        )
        return Decision(True, put=(put,), events=(_audit(put, service, at),))

    return Write((Key("webhook", called.id),), decide)


def _audit(webhook: Entity, service: str, at: float) -> Event:
    # The id follows from what is written: a decision may run twice.
    digest = hashlib.sha256(f"{webhook.id}/{webhook.version}/disabled".encode()).hexdigest()[:32]
    entry = AuditEntry(
        id=digest,
        at=at,
        subject=service,
        action="webhook.disable",
        entity=f"webhook/{webhook.id}",
        outcome="ok",
        request_id="",
    )
    return Event(
        topic=AUDIT,
        key=entry.entity,
        type=entry.action,
        id=entry.id,
        time=at,
        data=msgspec.json.encode(entry),
        subject=entry.entity,
    )
