"""Which deliveries an event causes. Pure: an event and the registered webhooks in, rows out."""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from backends.ports.entities import Entity
from backends.ports.events import Event
from backends.ports.stores import Delivery

WEBHOOK = "webhook"
EMAIL = "email"

EVENT_TYPES = ("user.created", "user.updated", "user.deleted", "configuration.changed", "configuration.deleted")
PATTERNS = frozenset({"*", *EVENT_TYPES, *(f"{name.partition('.')[0]}.*" for name in EVENT_TYPES)})
"""What can be subscribed to."""

ACTIVE = "active"
DISABLED = "disabled"


class Retired(msgspec.Struct, frozen=True):
    """A secret that was replaced and signs as well until *until* (Unix seconds)."""

    secret: str
    until: float


class Webhook(msgspec.Struct, frozen=True):
    """What a stored webhook's document says, as far as deliveries need it. `secret` is `whsec_` + base64; `state` is
    `active` or `disabled`, which gets nothing."""

    url: str
    events: list[str]
    secret: str
    id: str = ""
    state: str = ACTIVE
    retired: tuple[Retired, ...] = ()

    def secrets(self, now: float) -> list[str]:
        """Those that sign at *now* (Unix seconds), the newest first."""
        return [self.secret, *(retired.secret for retired in self.retired if retired.until > now)]


class WebhookBody(msgspec.Struct, frozen=True):
    """The body that Standard Webhooks 1.0 recommends. `timestamp` is ISO 8601, of the event."""

    type: str
    timestamp: str
    data: Any


_webhook = msgspec.json.Decoder(Webhook)


def webhook_of(entity: Entity) -> Webhook:
    """Raises `msgspec.MsgspecError` for a document that is no webhook."""
    return msgspec.structs.replace(_webhook.decode(entity.body), id=entity.id)


def matches(pattern: str, event_type: str) -> bool:
    """`*` matches everything, `user.*` every type below `user`, anything else itself alone."""
    return pattern in ("*", event_type) or (pattern.endswith(".*") and event_type.startswith(pattern[:-1]))


def delivery_id(event: Event, endpoint: str) -> str:
    """The same for every redelivery of *event* to *endpoint*, so that adding it again is a no-op.

    It goes out as `webhook-id` and Message-ID and has no full stop.
    """
    # Source and id together identify a CloudEvent; the lengths keep two parts from running together.
    parts = (event.source, event.id, endpoint)
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return f"msg_{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def webhook_deliveries(event: Event, source: str, webhooks: Iterable[Webhook], now: float) -> list[Delivery]:
    """One row an active webhook that asked for this type of event; *source* is the record's id."""
    active = (hook for hook in webhooks if hook.state == ACTIVE)
    wanted = [hook for hook in active if any(matches(pattern, event.type) for pattern in hook.events)]
    if not wanted:
        return []
    body = webhook_body(event)
    return [
        Delivery(
            id=delivery_id(event, hook.id),
            channel=WEBHOOK,
            endpoint=hook.id,
            event_id=event.id,
            event_type=event.type,
            source=source,
            payload=body,
            due_at=now,
            pending_since=now,
        )
        for hook in wanted
    ]


def webhook_body(event: Event) -> bytes:
    """Made once for all endpoints and attempts: what is signed is exactly what is sent.

    Of the change, receivers get what it is now: not what it was, nor who changed it.
    """
    data = msgspec.json.decode(event.data)
    if isinstance(data, dict):
        data = {name: value for name, value in data.items() if name not in ("previous", "subject")}
    timestamp = datetime.fromtimestamp(event.time, UTC).isoformat()
    return msgspec.json.encode(WebhookBody(event.type, timestamp, data))
