"""The tier in memory: values and negatives by kind, and tickets for the loads under way. Pure.

The caller brings the time. Made by the composition root, so a crash of the actor costs no entry.

The race it closes: a reader misses and reads version 1; a writer commits version 2 and invalidates; the
reader's late fill would put version 1 back for the whole TTL. So a load holds a *ticket*, an invalidation
voids it, and a fill with a void ticket is refused (the placeholder of Redis's client-side caching guide;
the lease of Nishtala et al., "Scaling Memcache at Facebook", NSDI '13, §3.2.1).
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from actors.cache_manager.messages import ABSENT, MISS, Loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class KindPolicy:
    """How one kind is kept. Seconds, and numbers of entries.

    `jitter`: entries live `ttl·(1 - U(0,1)·jitter)`, so that what was filled together does not expire
    together; downward only, as a TTL is a promise. Negatives have bounds of their own, so that a flood of
    keys that do not exist evicts none that do.
    """

    ttl: float
    negative_ttl: float = 5.0
    max_entries: int = 10_000
    max_absent: int = 10_000
    jitter: float = 0.1

    def __post_init__(self) -> None:
        if self.ttl < 0 or self.negative_ttl < 0 or not 0 <= self.jitter <= 1:
            raise ValueError(f"a cache kind needs TTLs of at least 0 s and a jitter within 0 and 1, got {self!r}")
        if self.max_entries < 1 or self.max_absent < 1:
            raise ValueError(f"a cache kind has room for at least 1 entry, got {self!r}")


class Ticket:
    """The right to fill one entry. Compared by identity; `LocalTier` knows whether it is still good."""

    __slots__ = ("key", "kind")

    def __init__(self, kind: str, key: str) -> None:
        self.kind = kind
        self.key = key


class _Shelf:
    """One kind's entries, the least recently used first. Each value with the time until which it is fresh."""

    __slots__ = ("absent", "policy", "values")

    def __init__(self, policy: KindPolicy) -> None:
        self.policy = policy
        self.values: OrderedDict[str, tuple[Any, float]] = OrderedDict()
        self.absent: OrderedDict[str, float] = OrderedDict()

    def evict(self, key: str) -> bool:
        # Both, never short-circuited: what is evicted must be gone from either.
        had_value = self.values.pop(key, None) is not None
        return (self.absent.pop(key, None) is not None) or had_value


class LocalTier:
    """All kinds. `now` is monotonic seconds throughout; a kind without a policy raises KeyError."""

    def __init__(self, policies: Mapping[str, KindPolicy], rng: Random) -> None:
        self._shelves = {kind: _Shelf(policy) for kind, policy in policies.items()}
        self._rng = rng
        self._tickets: dict[tuple[str, str], Ticket] = {}

    def get(self, kind: str, key: str, now: float) -> Any:
        """The value, ABSENT or MISS. An entry is fresh until, not at, the end of its time."""
        shelf = self._shelves[kind]
        entry = shelf.values.get(key)
        if entry is not None:
            if now < entry[1]:
                shelf.values.move_to_end(key)
                return entry[0]
            del shelf.values[key]
        until = shelf.absent.get(key)
        if until is not None:
            if now < until:
                shelf.absent.move_to_end(key)
                return ABSENT
            del shelf.absent[key]
        return MISS

    def begin_load(self, kind: str, key: str) -> Ticket:
        """A ticket to fill the entry. It voids an earlier one: of two loads the later began later."""
        if kind not in self._shelves:
            raise KeyError(kind)
        ticket = self._tickets[kind, key] = Ticket(kind, key)
        return ticket

    def finish_load(self, ticket: Ticket, loaded: Loaded, now: float) -> float:
        """Store what was loaded, unless the ticket is void (or the value may not be kept); for how many seconds."""
        if not self.abandon_load(ticket):
            return 0.0
        shelf = self._shelves[ticket.kind]
        policy = shelf.policy
        ttl = policy.negative_ttl if loaded.value is None else policy.ttl
        if loaded.max_age is not None:
            ttl = min(ttl, loaded.max_age)
        ttl *= 1 - policy.jitter * self._rng.random()
        shelf.evict(ticket.key)
        if ttl <= 0:
            return 0.0
        if loaded.value is None:
            _make_room(shelf.absent, policy.max_absent)
            shelf.absent[ticket.key] = now + ttl
        else:
            _make_room(shelf.values, policy.max_entries)
            shelf.values[ticket.key] = (loaded.value, now + ttl)
        return ttl

    def abandon_load(self, ticket: Ticket) -> bool:
        """Give a ticket back unused; False when it was void already."""
        name = (ticket.kind, ticket.key)
        if self._tickets.get(name) is not ticket:
            return False
        del self._tickets[name]
        return True

    def invalidate(self, names: Iterable[tuple[str, str]]) -> int:
        """Evict the (kind, key) pairs and void the loads under way for them; returns how many entries there were.

        Kinds that are not cached here are passed over: another version of Weir may have published them.
        """
        evicted = 0
        for kind, key in names:
            self._tickets.pop((kind, key), None)
            shelf = self._shelves.get(kind)
            if shelf is not None and shelf.evict(key):
                evicted += 1
        return evicted

    def flush(self) -> int:
        """Evict everything and void every load; returns how many entries there were."""
        self.void_loads()
        evicted = 0
        for shelf in self._shelves.values():
            evicted += len(shelf.values) + len(shelf.absent)
            shelf.values.clear()
            shelf.absent.clear()
        return evicted

    def void_loads(self) -> None:
        """Void every ticket: the loads they belong to died with their incarnation."""
        self._tickets.clear()

    def size(self) -> dict[tuple[str, str], int]:
        """How many entries are kept, fresh or not, by kind and sort (`value`, `absent`)."""
        sizes = {}
        for kind, shelf in self._shelves.items():
            sizes[kind, "value"] = len(shelf.values)
            sizes[kind, "absent"] = len(shelf.absent)
        return sizes


def _make_room(entries: OrderedDict[str, Any], limit: int) -> None:
    while len(entries) >= limit:
        entries.popitem(last=False)
