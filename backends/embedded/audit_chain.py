"""The hash chain over the audit trail: each row's hash covers the row and the hash before it. Pure.

Source: immudb's accumulative hash, Alh(n) = SHA256(… ‖ Alh(n-1) ‖ innerHash(n)).
"""

import hashlib
from collections.abc import Sequence

import msgspec

from backends.ports.stores import AuditEntry

ORIGIN = bytes(32)

Fields = tuple[str, float, str, str, str, str, str, int, str]
"""An entry in its columns' order: what is stored, hashed and read back."""

_encode = msgspec.json.Encoder().encode


def to_fields(entry: AuditEntry) -> Fields:
    return (
        entry.id,
        float(entry.at),
        entry.subject,
        entry.action,
        entry.entity,
        entry.outcome,
        entry.request_id,
        entry.status,
        entry.client,
    )


def to_entry(fields: Sequence[object]) -> AuditEntry:
    names = ("id", "at", "subject", "action", "entity", "outcome", "request_id", "status", "client")
    return msgspec.convert(dict(zip(names, fields, strict=True)), AuditEntry)


def chain_hash(previous: bytes, fields: Fields) -> bytes:
    """SHA-256 of *previous* (32 bytes, `ORIGIN` for the first row) and the fields as a JSON array."""
    return hashlib.sha256(previous + _encode(fields)).digest()
