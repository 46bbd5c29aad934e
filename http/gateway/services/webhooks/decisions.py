"""The writes of webhooks. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from actors.consumers.notification.deliveries_of import ACTIVE, DISABLED, Retired
from backends.ports.entities import Decision, Entity, Key, Refused, Write
from gateway.services.answers import Absent, Answer
from gateway.services.events import Cause, audited, first_version
from gateway.services.times import rfc3339
from gateway.services.webhooks.model import (
    KIND,
    SECRETS,
    Stored,
    WebhookInput,
    WebhookPatch,
    shown,
    shown_once,
    stored,
)


def create(id: str, webhook: WebhookInput, secret: str, cause: Cause) -> Write:
    """Answers with a 201 that shows the secret, this once."""
    events = list(dict.fromkeys(webhook.events))
    made = Stored(id=id, url=webhook.url, events=events, created_at=rfc3339(cause.at), secret=secret)

    def decide(_: Sequence[Entity | None], versions: Sequence[int]) -> Decision:
        entity = Entity(KIND, id, first_version(versions[0]), cause.at, cause.at, msgspec.json.encode(made))
        answer = Answer(201, shown_once(made, cause.at), location=f"/webhooks/{id}")
        return Decision(answer, put=(entity,), events=(audited(cause, "webhook.create", f"{KIND}/{id}", 201),))

    return Write((Key(KIND, id),), decide)


def patch(id: str, changes: WebhookPatch, cause: Cause) -> Write:
    """Answers with a 200; refuses with `Absent`."""

    def decide(entities: Sequence[Entity | None], _: Sequence[int]) -> Decision:
        current = _current(id, entities[0])
        after = _patched(current.webhook, changes, cause.at)
        return current.store(after, Answer(200, shown(after, cause.at)), "webhook.update", cause)

    return Write((Key(KIND, id),), decide)


def rotate(id: str, secret: str, overlap: float, cause: Cause) -> Write:
    """*secret* signs from now on, and those before it for *overlap* seconds more, at most.

    Answers with a 200 that shows it, this once; refuses with `Absent`.
    """

    def decide(entities: Sequence[Entity | None], _: Sequence[int]) -> Decision:
        current = _current(id, entities[0])
        before = current.webhook
        replaced = (Retired(before.secret, cause.at + overlap), *before.retired)
        still = tuple(retired for retired in replaced if retired.until > cause.at)[: SECRETS - 1]
        after = msgspec.structs.replace(before, secret=secret, retired=still)
        return current.store(after, Answer(200, shown_once(after, cause.at)), "webhook.rotate", cause)

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


@dataclass(frozen=True, slots=True)
class _Current:
    entity: Entity
    webhook: Stored

    def store(self, after: Stored, answer: Answer, action: str, cause: Cause) -> Decision:
        body = msgspec.json.encode(after)
        put = msgspec.structs.replace(self.entity, version=self.entity.version + 1, updated_at=cause.at, body=body)
        audit = audited(cause, action, f"{KIND}/{self.entity.id}", answer.status)
        return Decision(answer, put=(put,), events=(audit,))


def _current(id: str, entity: Entity | None) -> _Current:
    if entity is None:
        raise Refused(Absent(KIND, id))
    return _Current(entity, stored(entity.body))


def _patched(webhook: Stored, changes: WebhookPatch, at: float) -> Stored:
    given = {name: value for name in ("url", "state") if isinstance(value := getattr(changes, name), str)}
    after = msgspec.structs.replace(webhook, **given)
    if isinstance(changes.events, list):
        after = msgspec.structs.replace(after, events=list(dict.fromkeys(changes.events)))
    if after.state == ACTIVE:
        return msgspec.structs.replace(after, disabled_at=0.0, disabled_reason="")
    if webhook.state == DISABLED:
        return after
    return msgspec.structs.replace(after, disabled_at=at, disabled_reason="as was asked for")
