"""The writes of configuration values. A value is any JSON text, kept as its client wrote it. Pure."""

from collections.abc import Sequence
from typing import Any

import msgspec

from actors.cache_manager.messages import CONFIGURATION
from backends.ports.entities import Decision, Entity, Key, Refused, Write
from gateway.services.answers import Absent, Answer, PreconditionFailed
from gateway.services.conditional import etag, precondition_holds
from gateway.services.events import Cause, EntityChanged, audited, changed, first_version, invalidation

KIND = "configuration"

Preconditions = tuple[bytes | None, bytes | None]
"""The values of If-Match and If-None-Match."""


def put(key: str, value: bytes, conditions: Preconditions, cause: Cause) -> Write:
    """Answers with a 201 for a new key, else a 200; refuses with `PreconditionFailed`."""

    def decide(entities: Sequence[Entity | None], versions: Sequence[int]) -> Decision:
        current = entities[0]
        _check(conditions, current)
        version = first_version(versions[0]) if current is None else current.version + 1
        created_at = cause.at if current is None else current.created_at
        status = 201 if current is None else 200
        previous = None if current is None else document(key, current.body)
        data = EntityChanged(KIND, key, version, document(key, value), previous, cause.subject)
        events = (
            changed(cause, "configuration.changed", data),
            invalidation(cause, (CONFIGURATION, key)),
            audited(cause, "configuration.update", f"{KIND}/{key}", status),
        )
        location = f"/configuration/{key}" if current is None else ""
        answer = Answer(status, value, etag(version).decode(), location)
        return Decision(answer, put=(Entity(KIND, key, version, created_at, cause.at, value),), events=events)

    return Write((Key(KIND, key),), decide)


def delete(key: str, conditions: Preconditions, cause: Cause) -> Write:
    """Answers with a 204; refuses with `Absent` or `PreconditionFailed`."""

    def decide(entities: Sequence[Entity | None], _: Sequence[int]) -> Decision:
        current = entities[0]
        if current is None:
            raise Refused(Absent(KIND, key))
        _check(conditions, current)
        data = EntityChanged(KIND, key, current.version + 1, None, document(key, current.body), cause.subject)
        events = (
            changed(cause, "configuration.deleted", data),
            invalidation(cause, (CONFIGURATION, key)),
            audited(cause, "configuration.delete", f"{KIND}/{key}", 204),
        )
        return Decision(Answer(204), remove=(current.key,), events=events)

    return Write((Key(KIND, key),), decide)


def document(key: str, value: bytes) -> dict[str, Any]:
    """What events show of a value: an object, so that a value of null is not taken for a deletion."""
    return {"key": key, "value": msgspec.Raw(value)}


def _check(conditions: Preconditions, current: Entity | None) -> None:
    version = None if current is None else current.version
    if not precondition_holds(*conditions, version):
        raise Refused(PreconditionFailed(version))
