"""Audit events into the audit store."""

from collections.abc import Sequence

import msgspec

from actors.consumers.partitions import Delivered
from actors.consumers.retry import Permanent
from backends.ports.events import Record
from backends.ports.stores import AuditEntry, AuditStore

_decoder = msgspec.json.Decoder(AuditEntry)


class AuditHandler:
    """Group `audit`. Redelivery is a no-op: the store knows the entries' ids."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store

    async def handle(self, events: Sequence[Delivered]) -> None:
        """Append the entries of each partition in one call. Raises `Permanent` for data that is no `AuditEntry`."""
        chains: dict[str, list[AuditEntry]] = {}
        for delivered in events:
            chains.setdefault(chain_of(delivered.record), []).append(decode(delivered))
        for chain, entries in chains.items():
            await self._store.append(chain, entries)


def chain_of(record: Record) -> str:
    """A partition has one consumer at a time, so a chain for each has one writer."""
    return f"{record.topic}/{record.partition}"


def decode(delivered: Delivered) -> AuditEntry:
    try:
        return _decoder.decode(delivered.event.data)
    except msgspec.MsgspecError as error:
        raise Permanent(f"{delivered.record.id}: no audit entry: {error}") from error
