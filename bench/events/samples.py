"""Records to consume, as Weir's services publish them: CloudEvents in binary mode, about 300 bytes of JSON."""

import json
from collections.abc import Iterator

KEYS = 1000
AT = 1_780_000_000.0
ISO = "2026-05-28T20:26:40+00:00"

Sample = tuple[bytes, bytes, list[tuple[str, bytes]]]
"""Key, value, headers."""


def audits(count: int) -> Iterator[Sample]:
    """Audit entries of *count* reads of `KEYS` users."""
    for number in range(count):
        id, entity = (
            f"{number:08x}-0000-4000-8000-000000000000",
            f"user/{number % KEYS:08x}-0000-4000-8000-000000000001",
        )
        entry = {
            "id": id,
            "at": AT + number / 1000,
            "subject": "bench",
            "action": "user.read",
            "entity": entity,
            "outcome": "ok",
            "request_id": f"{number:08x}-0000-4000-8000-000000000002",
            "status": 200,
            "client": "127.0.0.1",
        }
        yield entity.encode(), json.dumps(entry, separators=(",", ":")).encode(), headers(id, "user.read", entity)


def changes(count: int) -> Iterator[Sample]:
    """*count* new users, each of 30 words."""
    for number in range(count):
        id = f"{number:08x}-0000-4000-8000-000000000003"
        words = " ".join(f"word{(number * 31 + place * 7919) % 20_000}" for place in range(24))
        user = {"id": id, "name": f"Reader {number}", "email": f"reader{number}@bench.example", "bio": words}
        change = {"kind": "user", "id": id, "version": 1, "entity": {**user, "version": 1}, "subject": "bench"}
        yield f"user/{id}".encode(), json.dumps(change).encode(), headers(id, "user.created", f"user/{id}")


def headers(id: str, type: str, subject: str) -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", id.encode()),
        ("ce_source", b"weir"),
        ("ce_type", type.encode()),
        ("ce_time", ISO.encode()),
        ("content-type", b"application/json"),
        ("ce_subject", subject.encode()),
    ]
