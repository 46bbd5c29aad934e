"""The events that services publish: entity changes, evictions, audits. Pure."""

from typing import Any

import msgspec

from backends.ports.events import AUDIT, CACHE_INVALIDATE, ENTITY_CHANGED, Event
from backends.ports.stores import AuditEntry


class EntityChanged(msgspec.Struct, frozen=True):
    """The data of an `entity.changed` event. `entity` and `previous` are JSON documents (msgspec.Raw) or None."""

    kind: str
    id: str
    version: int
    entity: Any
    previous: Any
    subject: str


class CacheKeys(msgspec.Struct, frozen=True):
    """The data of a `cache.invalidate` event: (kind, key) pairs."""

    keys: tuple[tuple[str, str], ...]


class Cause(msgspec.Struct, frozen=True):
    """Why something is written: who asked, in which request, when (Unix seconds), and ids for its events.

    Ids are made before the write, because the decision is pure and may run twice.
    """

    subject: str
    request_id: str
    at: float
    ids: tuple[str, str, str]
    client: str = ""
    traceparent: str = ""


def first_version(removed: int) -> int:
    """The version of a new entity whose key had *removed* as its last one (0: none). A removal takes one itself."""
    return removed + 1


def changed(cause: Cause, type: str, data: EntityChanged) -> Event:
    return Event(
        topic=ENTITY_CHANGED,
        key=data.id,
        type=type,
        id=cause.ids[0],
        time=cause.at,
        data=msgspec.json.encode(data),
        subject=f"{data.kind}/{data.id}",
        traceparent=cause.traceparent,
    )


def invalidation_id(cause: Cause) -> str:
    """The id of the one `cache.invalidate` event that a cause may have."""
    return cause.ids[1]


def invalidation(cause: Cause, *keys: tuple[str, str]) -> Event:
    """Every instance evicts *keys* (cache kind, key) when it reads this."""
    return Event(
        topic=CACHE_INVALIDATE,
        key=keys[0][1],
        type=CACHE_INVALIDATE,
        id=invalidation_id(cause),
        time=cause.at,
        data=msgspec.json.encode(CacheKeys(keys)),
        traceparent=cause.traceparent,
    )


def audited(cause: Cause, action: str, entity: str, status: int) -> Event:
    """The audit of a write that happened: part of its transaction, so never lost."""
    entry = AuditEntry(
        id=cause.ids[2],
        at=cause.at,
        subject=cause.subject,
        action=action,
        entity=entity,
        outcome=outcome(status),
        request_id=cause.request_id,
        status=status,
        client=cause.client,
    )
    return audit_event(entry, cause.traceparent)


def audit_event(entry: AuditEntry, traceparent: str = "") -> Event:
    return Event(
        topic=AUDIT,
        key=entry.entity,
        type=entry.action,
        id=entry.id,
        time=entry.at,
        data=msgspec.json.encode(entry),
        subject=entry.entity,
        traceparent=traceparent,
    )


def outcome(status: int) -> str:
    """The audit outcome of an HTTP status: `ok`, `denied` (401, 403) or `failed`."""
    if status < 400:
        return "ok"
    return "denied" if status in (401, 403) else "failed"
