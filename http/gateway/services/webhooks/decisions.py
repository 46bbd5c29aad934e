"""The writes of webhooks. Pure."""

from collections.abc import Sequence

import msgspec

from backends.ports.entities import Decision, Entity, Key, Refused, Write
from gateway.services.answers import Absent, Answer
from gateway.services.events import Cause, audited, first_version
from gateway.services.times import rfc3339
from gateway.services.webhooks.model import KIND, NewWebhook, WebhookInput


def create(id: str, webhook: WebhookInput, secret: str, cause: Cause) -> Write:
    """Answers with a 201 that shows the secret, this once."""
    events = list(dict.fromkeys(webhook.events))
    body = msgspec.json.encode(NewWebhook(id, webhook.url, events, rfc3339(cause.at), secret))

    def decide(_: Sequence[Entity | None], versions: Sequence[int]) -> Decision:
        entity = Entity(KIND, id, first_version(versions[0]), cause.at, cause.at, body)
        audit = audited(cause, "webhook.create", f"{KIND}/{id}", 201)
        return Decision(Answer(201, body, location=f"/webhooks/{id}"), put=(entity,), events=(audit,))

    return Write((Key(KIND, id),), decide)


def delete(id: str, cause: Cause) -> Write:
    """Answers with a 204; refuses with `Absent`."""

    def decide(entities: Sequence[Entity | None], _: Sequence[int]) -> Decision:
        if entities[0] is None:
            raise Refused(Absent(KIND, id))
        return Decision(
            Answer(204), remove=(Key(KIND, id),), events=(audited(cause, "webhook.delete", f"{KIND}/{id}", 204),)
        )

    return Write((Key(KIND, id),), decide)
