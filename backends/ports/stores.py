"""The stores behind the consumers: audit trail, search index, deliveries.

Each absorbs redelivery by itself (event id, version, delivery id), so that at-least-once consumption
has its effect once.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
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


class AuditHead(msgspec.Struct, frozen=True):
    """The last row of a chain: its sequence (0: none yet) and its hash in hex."""

    chain: str
    sequence: int
    hash: str


class AuditBreak(msgspec.Struct, frozen=True):
    """The first row of a chain that does not hold, and in words what is wrong with it."""

    chain: str
    sequence: int
    what: str


class AuditVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at the whole trail found: `rows` hold, up to `heads`, one a chain; `broken` is the first break
    of each chain that has one. () means that the trail is whole."""

    rows: int
    heads: tuple[AuditHead, ...]
    broken: tuple[AuditBreak, ...]


Sign = Callable[[AuditHead], str]
"""Signs the head of a prefix that is dropped."""

Trusted = Callable[[AuditHead, str], bool]
"""Whether a head has that signature."""

Progress = Callable[[int, int], None]
"""Called now and then with how much is done and how much there is."""


class AuditStore(Protocol):
    """Append-only: the store itself refuses changes, and a change behind its back shows in `verify`.

    The trail is a chain of hashes for each partition of its topic (`audit_chain`), so that partitions are written
    side by side and a partition has one writer. Two writers of a chain cannot fork it: each takes the next sequence
    under the transaction's lock, and no sequence can be taken twice.
    """

    async def open(self) -> None: ...
    async def aclose(self) -> None: ...

    async def append(self, chain: str, entries: Sequence[AuditEntry]) -> int:
        """Append to *chain* (`topic/partition` of their records) those whose id is new in the whole trail,
        atomically and without gaps in the sequence; returns how many were."""
        ...

    async def query(self, where: AuditFilter, before: tuple[float, str] | None, limit: int) -> list[AuditEntry]:
        """Newest first, by (at, id); only rows strictly before *before*. Pages neither repeat nor skip a row that
        was there when the first was read, whatever is appended meanwhile."""
        ...

    async def heads(self) -> list[AuditHead]:
        """The chains by name, each with its last row."""
        ...

    async def verify(
        self,
        *,
        trusted: Trusted,
        expected: Sequence[AuditHead] = (),
        progress: Progress = lambda done, total: None,
    ) -> AuditVerdict:
        """Check every chain from its checkpoint (or its beginning) to its last row.

        *trusted* judges the checkpoints' signatures. *expected* are heads known from elsewhere: the trail must
        still hold them, else its tail was cut or rewritten, which nothing inside it would show. Rows that are
        appended meanwhile are not looked at. May be cancelled; takes about 15 s a million rows.
        """
        ...

    async def drop_prefix(self, before: float, limit: int, sign: Sign) -> int:
        """Drop up to *limit* rows, of each chain the oldest as far as all of them have `at` < *before*; returns how
        many. What is left of a chain begins behind a checkpoint signed with *sign*, written in the same transaction."""
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


class RebuildUnderWay(Exception):
    """Somebody else builds this index anew just now."""


class Rebuild(Protocol):
    """A new index beside the one that answers queries."""

    async def apply(self, documents: Sequence[Document]) -> int:
        """As `SearchIndex.apply`, into the new index alone: what is read from the database."""
        ...

    async def swap(self) -> None:
        """Let the new index answer from now on, and drop the old one; atomic. The rebuild ends with it."""
        ...


class SearchIndex(Protocol):
    async def open(self) -> None: ...
    async def aclose(self) -> None: ...

    async def apply(self, documents: Sequence[Document]) -> int:
        """Upsert those with a higher version than the stored one; returns how many were.

        Each of them is whole or not there at all; a failure half way leaves the first ones, and applying all
        again is harmless. While a rebuild is under way, whoever's, they go into both indexes.
        """
        ...

    def rebuilding(self) -> AbstractAsyncContextManager[Rebuild]:
        """Begin a new index. It begins with the old one's tombstones, so that a late event revives nothing.

        Left without `swap` (an error, a cancellation), the new index is dropped and the old one stays; so it does
        when the process dies, whose remains the next rebuild clears away. Raises `RebuildUnderWay`.
        """
        ...

    async def count(self) -> int:
        """How many documents it holds, tombstones left out."""
        ...

    async def query(self, q: str, type: str | None, offset: int, limit: int) -> list[SearchHit]:
        """Best first: a match in the first field weighs more than one in the second, and that more than in the
        third. Any *q* is safe: words are prefixes that must all match, "quoted words" are phrases; a *q* without
        a searchable word finds nothing."""
        ...


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One message to one receiver. `id` is constant over attempts (`webhook-id`, Message-ID).

    `channel` is `webhook` or `email`; `endpoint` the webhook's id or the address. `payload` holds what
    is sent (webhook body, or the e-mail as JSON). `source` is the original record's `topic/partition/offset`.
    `state`: `pending`, `done`, `dead`, `withdrawn` (nobody wants it any more). Times are Unix seconds.

    `replays`: how often it was made pending again. `pending_since`: when it became pending, the first time or again.
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
    replays: int = 0
    pending_since: float = 0.0


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
        """Make a dead delivery pending again with no attempts, and count the replay; False when there is none."""
        ...

    async def withdraw(self, endpoint: str, now: float, reason: str) -> int:
        """Withdraw all that is pending for *endpoint*, due or not; returns how many were."""
        ...

    async def pending(self) -> int:
        """How many deliveries are still to be made. Cheap, however many have been."""
        ...

    async def oldest(self) -> float | None:
        """Since when the delivery has been pending that has been so longest; None: nothing is. Cheap."""
        ...

    async def counts(self) -> dict[str, int]:
        """How many deliveries are in each state."""
        ...

    async def purge(self, done_before: float, limit: int) -> int:
        """Delete up to *limit* deliveries, done or withdrawn before *done_before*; returns how many."""
        ...
