"""The stores behind the consumers: audit trail, search index, deliveries.

Each absorbs redelivery by itself (event id, version, delivery id), so that at-least-once consumption
has its effect once.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One audit record. `id` is the event's id (unique); `at` is Unix seconds.

    `action` is `user.read` or, for what the gateway itself audits, method and route; `entity` is
    `user/<id>` or the canonical path; `outcome` is `ok`, `denied` or `failed`.
    """

    id: str
    at: float
    subject: str
    action: str
    entity: str
    outcome: str
    request_id: str
    status: int = 0
    client: str = ""


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions joined by AND; None is no condition. `since` ≤ at < `until`, Unix seconds."""

    subject: str | None = None
    action: str | None = None
    entity: str | None = None
    since: float | None = None
    until: float | None = None


class AuditVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at the whole trail found. `rows` hold, the last of them with the hash `head` (hex);
    `broken` names the first that does not (changed, missing), None: the trail is whole."""

    rows: int
    head: str
    broken: str | None


class AuditStore(Protocol):
    """Append-only: the store itself refuses changes, and a change behind its back shows in `verify`."""

    async def open(self) -> None: ...
    async def aclose(self) -> None: ...

    async def append(self, entries: Sequence[AuditEntry]) -> int:
        """Insert those whose id is new, atomically; returns how many were."""
        ...

    async def query(self, where: AuditFilter, before: tuple[float, str] | None, limit: int) -> list[AuditEntry]:
        """Newest first, by (at, id); only rows strictly before *before*."""
        ...

    async def verify(self) -> AuditVerdict:
        """Check the chain of hashes from the first row to the last."""
        ...


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A searchable document's state. `deleted` keeps a tombstone, so that a late event cannot revive it.

    `fields` are the texts to search, in the index's column order: for users name, email, bio.
    """

    type: str
    id: str
    version: int
    fields: tuple[str, str, str] = ("", "", "")
    deleted: bool = False


class SearchHit(msgspec.Struct, frozen=True):
    """`score`: higher is better. `highlight`: a snippet with the matches between `<mark>` and `</mark>`,
    everything else HTML-escaped."""

    type: str
    id: str
    score: float
    highlight: str


class SearchIndex(Protocol):
    async def open(self) -> None: ...
    async def aclose(self) -> None: ...

    async def apply(self, documents: Sequence[Document]) -> int:
        """Upsert those with a higher version than the stored one, atomically; returns how many were."""
        ...

    async def clear(self) -> None:
        """Forget every document before they are all applied anew; tombstones stay."""
        ...

    async def query(self, q: str, type: str | None, offset: int, limit: int) -> list[SearchHit]:
        """Best first. Any *q* is safe: words are prefixes that must all match, "quoted words" are phrases;
        a *q* without a searchable word finds nothing."""
        ...


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One message to one receiver. `id` is constant over attempts (`webhook-id`, Message-ID).

    `channel` is `webhook` or `email`; `endpoint` the webhook's id or the address. `payload` holds what
    is sent (webhook body, or the e-mail as JSON). `source` is the original record's `topic/partition/offset`.
    `state`: `pending`, `done`, `dead`. Times are Unix seconds.
    """

    id: str
    channel: str
    endpoint: str
    event_id: str
    event_type: str
    source: str
    payload: bytes
    state: str = "pending"
    attempts: int = 0
    due_at: float = 0.0
    first_at: float = 0.0
    last_at: float = 0.0
    error: str = ""


class DeliveryStore(Protocol):
    async def open(self) -> None: ...
    async def aclose(self) -> None: ...

    async def add(self, deliveries: Sequence[Delivery]) -> int:
        """Insert those whose id is new, atomically; returns how many were."""
        ...

    async def endpoints(self, now: float, limit: int, exclude: Sequence[str]) -> list[str]:
        """Endpoints that have a delivery due at *now*, who waits longest first, at most *limit*, none of *exclude*."""
        ...

    async def due(self, endpoint: str, now: float, limit: int) -> list[Delivery]:
        """The pending deliveries of *endpoint* that are due at *now*, oldest first, at most *limit*."""
        ...

    async def next_due(self, exclude: Sequence[str]) -> float | None:
        """When the earliest pending delivery outside *exclude* is due, Unix seconds."""
        ...

    async def save(self, deliveries: Sequence[Delivery]) -> None:
        """Store the outcomes of attempts (state, attempts, due_at, times, error), atomically."""
        ...

    async def get(self, id: str) -> Delivery | None: ...

    async def reset(self, id: str, now: float) -> bool:
        """Make a dead delivery pending again with no attempts; False when there is none."""
        ...

    async def pending(self) -> int:
        """How many deliveries are still to be made. Cheap, however many have been."""
        ...

    async def counts(self) -> dict[str, int]:
        """How many deliveries are in each state."""
        ...

    async def purge(self, done_before: float, limit: int) -> int:
        """Delete up to *limit* done deliveries whose last attempt was before *done_before*; returns how many."""
        ...
