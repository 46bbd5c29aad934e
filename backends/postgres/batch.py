"""What a batch of writes comes to, over the rows it was read from. Pure: rows in, changes and outcomes out.

The same rules as the embedded store's, where SQLite holds them: each write sees those before it, one that is refused
or cannot be stored leaves nothing, versions never go back.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from backends.ports.cloudevents import to_record
from backends.ports.entities import Decision, Entity, Key, Refused, Write
from backends.ports.events import NewRecord

_encode_headers = msgspec.msgpack.Encoder().encode
_decode_headers = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...]).decode


class Row(NamedTuple):
    """An entity as it is stored. `body` None: it was removed, and `version` is what the removal took.
    `seen`: the transaction that wrote it, None for a change of this batch."""

    version: int
    created_at: float
    updated_at: float
    expires_at: float
    body: bytes | None
    seen: int | None = None


class Outgoing(NamedTuple):
    """A row of the outbox: nothing about it can fail any more."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    headers: bytes | None


class Batch(NamedTuple):
    """`outcomes`: one a write. `changes`: rows to store. `read`: every key on which an accepted write relies.
    `missing`: keys that a decision writes and nobody read: read them too, and decide again."""

    outcomes: list[Any | Refused | Exception]
    changes: dict[Key, Row]
    read: set[Key]
    outgoing: list[Outgoing]
    missing: set[Key]


def keys_of(writes: Iterable[Write]) -> set[Key]:
    return {key for write in writes for key in write.keys}


def decide_all(writes: Sequence[Write], rows: Mapping[Key, Row], read: set[Key], now: float) -> Batch:
    """Run the decisions in order. *rows*: those that exist of the keys *read*. *now*: Unix seconds."""
    batch = Batch([], {}, set(), [], set())
    for write in writes:
        try:
            decision = write.decide(*_given(write, rows, batch.changes, now))
            missing = {key for key in _written(decision) if key not in read}
            if missing:
                batch.missing.update(missing)
                continue
            # Encoded before anything is changed: an event that cannot be is this write's failure alone.
            outgoing = [prepare(to_record(event)) for event in decision.events]
            changes = _changed(decision, rows, batch.changes, now)
        except Exception as error:
            batch.outcomes.append(error)
            continue
        batch.outcomes.append(decision.answer)
        batch.outgoing.extend(outgoing)
        batch.changes.update(changes)
        if changes or outgoing:
            batch.read.update(write.keys, _written(decision))
    return batch


def living(key: Key, row: Row | None, now: float) -> Entity | None:
    if row is None or row.body is None or 0 < row.expires_at <= now:
        return None
    return Entity(*key, row.version, row.created_at, row.updated_at, row.body, row.expires_at)


def prepare(record: NewRecord) -> Outgoing:
    """Raises what msgspec raises for headers that are not (str, bytes)."""
    headers = _encode_headers(record.headers) if record.headers else None
    return Outgoing(record.topic, record.partition, record.key, record.value, headers)


def restored(row: Outgoing) -> NewRecord:
    headers = _decode_headers(row.headers) if row.headers else ()
    return NewRecord(row.topic, row.key, row.value, headers, row.partition)


def _given(
    write: Write, rows: Mapping[Key, Row], changes: Mapping[Key, Row], now: float
) -> tuple[list[Entity | None], list[int]]:
    entities: list[Entity | None] = []
    removed: list[int] = []
    for key in write.keys:
        row = changes.get(key) or rows.get(key)
        entity = living(key, row, now)
        entities.append(entity)
        removed.append(row.version if row is not None and entity is None else 0)
    return entities, removed


def _written(decision: Decision) -> Iterable[Key]:
    return (*(entity.key for entity in decision.put), *decision.remove)


def _changed(decision: Decision, rows: Mapping[Key, Row], changes: Mapping[Key, Row], now: float) -> dict[Key, Row]:
    """Raises ValueError for a version that would go back."""
    new: dict[Key, Row] = {}

    def found(key: Key) -> Row | None:
        return new.get(key) or changes.get(key) or rows.get(key)

    for entity in decision.put:
        before = found(entity.key)
        if before is not None and entity.version < before.version + (before.body is None):
            raise ValueError(f"{entity.kind}/{entity.id}: version {entity.version} would go back")
        new[entity.key] = Row(
            entity.version, entity.created_at, entity.updated_at, entity.expires_at, bytes(entity.body)
        )
    for key in decision.remove:
        before = found(key)
        if before is not None and before.body is not None:
            new[key] = Row(before.version + 1, before.created_at, now, 0.0, None)
    return new
