"""The hash chains over the audit trail: each row's hash covers the row, its place and the hash before it. Pure.

    hash(n) = SHA-256(hash(n-1) ‖ canonical JSON of row n)

The canonical form is RFC 8785's (JCS), so that anybody can compute it with a library of their own; the scheme is
immudb's accumulative hash, Alh(n) = SHA256(… ‖ Alh(n-1) ‖ innerHash(n)). Chain and sequence are part of the row:
two chains cannot be exchanged, nor a row be told to stand elsewhere.
"""

import hashlib
from collections.abc import Sequence

import msgspec
import rfc8785

from backends.ports.stores import AuditEntry

ORIGIN = bytes(32)
"""The hash before the first row."""

LEGACY_CHAIN = "audit"
"""The one chain of the first version. Its rows keep the hashes they were written with; nothing is appended to it
any more (a chain is called `topic/partition` since)."""

Fields = tuple[str, float, str, str, str, str, str, int, str]
"""An entry in its columns' order: what is stored, hashed and read back."""

_encode = msgspec.json.Encoder().encode
_SAFE_INTEGER = 2**53


class _Canonical(msgspec.Struct, frozen=True, gc=False):
    """The members in the order of their names, as RFC 8785 §3.2.3 sorts them."""

    action: str
    at: msgspec.Raw
    chain: str
    client: str
    entity: str
    id: str
    outcome: str
    request_id: str
    sequence: int
    status: int
    subject: str


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


def canonical(chain: str, sequence: int, fields: Fields) -> bytes:
    """RFC 8785's bytes of a row, written directly: a fifth of the library's time, which the hot path has not.

    Raises ValueError (UnicodeEncodeError among them) for what JSON cannot carry: an infinite time, a number
    beyond 2^53, half a surrogate pair.
    """
    id, at, subject, action, entity, outcome, request_id, status, client = fields
    if not -_SAFE_INTEGER < status < _SAFE_INTEGER:
        raise ValueError(f"audit entry {id}: status {status} is beyond what JSON numbers hold")
    return _encode(
        _Canonical(action, _number(at), chain, client, entity, id, outcome, request_id, sequence, status, subject)
    )


def chain_hash(chain: str, sequence: int, previous: bytes, fields: Fields) -> bytes:
    """The hash of row *sequence*; *previous* is that of the row before, `ORIGIN` for the first."""
    row = _encode(fields) if chain == LEGACY_CHAIN else canonical(chain, sequence, fields)
    return hashlib.sha256(previous + row).digest()


def _number(value: float) -> msgspec.Raw:
    # Here Python and ECMAScript (RFC 8785 §3.2.2.3) write the same shortest digits, but for a fraction of 0.
    # The times of many thousand years are in this range; the library knows the rest.
    if 1e-4 <= value < 1e16:
        return msgspec.Raw(repr(value).removesuffix(".0").encode())
    return msgspec.Raw(rfc8785.dumps(value))
