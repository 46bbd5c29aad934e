"""The data of an `entity.changed` event. Pure."""

from typing import Any

import msgspec

from actors.consumers.retry import Permanent
from backends.ports.events import Event


class EntityChange(msgspec.Struct, frozen=True):
    """`entity` is the state after the change, None for a deletion; `previous` the one before, if any.

    `subject` is who made the change.
    """

    kind: str
    id: str
    version: int
    entity: dict[str, Any] | None = None
    previous: dict[str, Any] | None = None
    subject: str = ""


class _Head(msgspec.Struct, frozen=True):
    kind: str


_change = msgspec.json.Decoder(EntityChange)
_head = msgspec.json.Decoder(_Head)


def decode_change(event: Event) -> EntityChange:
    """Raises `Permanent` for data that is no change of an entity."""
    try:
        return _change.decode(event.data)
    except msgspec.MsgspecError as error:
        raise Permanent(f"event {event.id}: no entity change: {error}") from error


def kind_of(event: Event) -> str:
    """The kind of entity alone: other kinds have other shapes. Raises `Permanent` as `decode_change` does."""
    try:
        return _head.decode(event.data).kind
    except msgspec.MsgspecError as error:
        raise Permanent(f"event {event.id}: no entity change: {error}") from error
