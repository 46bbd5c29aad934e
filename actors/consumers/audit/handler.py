"""Audit events into the audit store."""

from collections.abc import Sequence

import msgspec

from actors.consumers.partitions import Delivered
from actors.consumers.retry import Permanent
from backends.ports.stores import AuditEntry, AuditStore

_decoder = msgspec.json.Decoder(AuditEntry)


class AuditHandler:
    """Group `audit`. Redelivery is a no-op: the store knows the entries' ids."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store

    async def handle(self, events: Sequence[Delivered]) -> None:
        """Append all entries in one call. Raises `Permanent` for data that is no `AuditEntry`."""
        await self._store.append([decode(delivered) for delivered in events])


def decode(delivered: Delivered) -> AuditEntry:
    try:
        return _decoder.decode(delivered.event.data)
    except msgspec.MsgspecError as error:
        raise Permanent(f"{delivered.record.id}: no audit entry: {error}") from error
