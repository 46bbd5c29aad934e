"""The writes of users: from the current entity and a command to what is stored, published and answered. Pure."""

from collections.abc import Sequence
from typing import Any

import msgspec

from actors.cache_manager.messages import USER_PROFILE
from backends.ports.entities import Decision, Entity, Key, Refused, Write
from gateway.services import bodies
from gateway.services.answers import Absent, Answer, Invalid, PreconditionFailed
from gateway.services.conditional import etag, precondition_holds
from gateway.services.events import Cause, EntityChanged, audited, changed, first_version, invalidation
from gateway.services.times import rfc3339
from gateway.services.users.model import KIND, User, UserInput, rules

Preconditions = tuple[bytes | None, bytes | None]
"""The values of If-Match and If-None-Match."""


def create(id: str, user: UserInput, cause: Cause) -> Write:
    """Answers with a 201."""

    def decide(_: Sequence[Entity | None], versions: Sequence[int]) -> Decision:
        return _store(id, user, None, first_version(versions[0]), cause, "create")

    return Write((Key(KIND, id),), decide)


def replace(id: str, user: UserInput, conditions: Preconditions, cause: Cause) -> Write:
    """Answers with a 200; refuses with `Absent` or `PreconditionFailed`."""

    def decide(entities: Sequence[Entity | None], _: Sequence[int]) -> Decision:
        current = _current(id, entities[0], conditions)
        return _store(id, user, current, current.version + 1, cause, "update")

    return Write((Key(KIND, id),), decide)


def patch(id: str, changes: Any, conditions: Preconditions, cause: Cause) -> Write:
    """Answers with a 200; refuses with `Absent`, `PreconditionFailed`, or `Invalid` if the result is no user."""

    def decide(entities: Sequence[Entity | None], _: Sequence[int]) -> Decision:
        current = _current(id, entities[0], conditions)
        before = msgspec.json.decode(current.body, type=User)
        after = merge_patch({"name": before.name, "email": before.email, "bio": before.bio}, changes)
        errors = bodies.faults(after, UserInput) or rules(bodies.convert(after, UserInput))
        if errors:
            raise Refused(Invalid(tuple(errors)))
        return _store(id, bodies.convert(after, UserInput), current, current.version + 1, cause, "update")

    return Write((Key(KIND, id),), decide)


def delete(id: str, conditions: Preconditions, cause: Cause) -> Write:
    """Answers with a 204; refuses with `Absent` or `PreconditionFailed`."""

    def decide(entities: Sequence[Entity | None], _: Sequence[int]) -> Decision:
        current = _current(id, entities[0], conditions)
        gone = EntityChanged(KIND, id, current.version + 1, None, msgspec.Raw(current.body), cause.subject)
        events = (
            changed(cause, "user.deleted", gone),
            invalidation(cause, (USER_PROFILE, id)),
            audited(cause, "user.delete", f"user/{id}", 204),
        )
        return Decision(Answer(204), remove=(current.key,), events=events)

    return Write((Key(KIND, id),), decide)


def merge_patch(target: Any, changes: Any) -> Any:
    """Apply a JSON Merge Patch as RFC 7396 §2 defines it. *target* is not changed."""
    if not isinstance(changes, dict):
        return changes
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def _current(id: str, entity: Entity | None, conditions: Preconditions) -> Entity:
    if entity is None:
        raise Refused(Absent(KIND, id))
    if not precondition_holds(*conditions, entity.version):
        raise Refused(PreconditionFailed(entity.version))
    return entity


def _store(id: str, user: UserInput, current: Entity | None, version: int, cause: Cause, verb: str) -> Decision:
    created_at = cause.at if current is None else current.created_at
    document = User(id, user.name, user.email, user.bio, version, rfc3339(created_at), rfc3339(cause.at))
    body = msgspec.json.encode(document)
    previous = None if current is None else msgspec.Raw(current.body)
    data = EntityChanged(KIND, id, version, msgspec.Raw(body), previous, cause.subject)
    status = 201 if current is None else 200
    events = (
        changed(cause, f"user.{verb}d", data),
        invalidation(cause, (USER_PROFILE, id)),
        audited(cause, f"user.{verb}", f"user/{id}", status),
    )
    answer = Answer(status, body, etag(version).decode(), f"/users/{id}" if current is None else "")
    return Decision(answer, put=(Entity(KIND, id, version, created_at, cause.at, body),), events=events)
