"""Idempotency-Key on POST: the first answer again, kept in the transaction of what it answers. Pure."""

import hashlib
from collections.abc import Sequence

import msgspec

from backends.ports.entities import Decision, Entity, Key, Refused, Write
from gateway.problem import ProblemError
from gateway.services.answers import Answer, KeyReused
from gateway.services.events import first_version

KIND = "idempotency"
LIFETIME_S = 24 * 3600.0
MAX_LENGTH = 255


class Kept(msgspec.Struct, frozen=True):
    """The private body of an `idempotency` entity: which request it was, and what it was answered."""

    fingerprint: str
    answer: Answer


class Name(msgspec.Struct, frozen=True):
    """A key in use: the digest that names it, and the digest of the body it came with (both hex SHA-256)."""

    id: str
    fingerprint: str


def name(header: bytes | None, subject: str, route: str, body: bytes) -> Name | None:
    """What *header* names for this caller and route; None without a header. Raises a 400 for a key that is none."""
    if header is None:
        return None
    if not 0 < len(header) <= MAX_LENGTH or not all(0x20 <= byte < 0x7F for byte in header):
        raise ProblemError(400, f"an Idempotency-Key is 1 to {MAX_LENGTH} printable ASCII characters")
    # Lengths first, so that no two (subject, route, key) triples have the same input.
    parts = (subject.encode(), route.encode(), header)
    digest = hashlib.sha256(b"".join(b"%d:%s" % (len(part), part) for part in parts))
    return Name(digest.hexdigest(), hashlib.sha256(body).hexdigest())


def once(write: Write, key: Name | None, now: float) -> Write:
    """*write* as it is, or so that under *key* it happens once. Its decision must answer with an `Answer`."""
    if key is None:
        return write

    def decide(entities: Sequence[Entity | None], versions: Sequence[int]) -> Decision:
        first = entities[0]
        if first is not None:
            kept = msgspec.json.decode(first.body, type=Kept)
            if kept.fingerprint != key.fingerprint:
                raise Refused(KeyReused())
            return Decision(msgspec.structs.replace(kept.answer, replayed=True))
        decision = write.decide(entities[1:], versions[1:])
        body = msgspec.json.encode(Kept(key.fingerprint, decision.answer))
        keep = Entity(KIND, key.id, first_version(versions[0]), now, now, body, expires_at=now + LIFETIME_S)
        return decision._replace(put=(keep, *decision.put))

    return Write((Key(KIND, key.id), *write.keys), decide)
