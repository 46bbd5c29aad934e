"""The tier in memory, against rules of its own and against an oracle that remembers everything."""

from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.cache_manager.messages import ABSENT, MISS, Loaded
from actors.cache_manager.store import KindPolicy, LocalTier, Ticket

KIND = "user_profile"
POLICY = KindPolicy(ttl=300, negative_ttl=5, max_entries=3, max_absent=2, jitter=0.1)


def tier(policy: KindPolicy = POLICY) -> LocalTier:
    return LocalTier({KIND: policy}, Random(1))


def fill(tier: LocalTier, key: str, value: object, now: float = 0.0, max_age: float | None = None) -> bool:
    return tier.finish_load(tier.begin_load(KIND, key), Loaded(value, max_age), now)


def test_a_value_is_fresh_for_its_ttl_less_at_most_the_jitter() -> None:
    cache = tier()
    assert fill(cache, "a", 1)
    assert cache.get(KIND, "a", 269.9) == 1
    assert cache.get(KIND, "a", 300) is MISS


def test_without_jitter_it_is_fresh_until_not_at_the_end() -> None:
    cache = tier(KindPolicy(ttl=300, jitter=0))
    fill(cache, "a", 1)
    assert cache.get(KIND, "a", 299.999) == 1
    assert cache.get(KIND, "a", 300) is MISS


def test_entries_filled_together_do_not_expire_together() -> None:
    cache = tier(KindPolicy(ttl=300))
    for key in range(100):
        fill(cache, str(key), key)
    fresh = sum(cache.get(KIND, str(key), 285) is not MISS for key in range(100))
    assert 20 < fresh < 80


def test_an_entry_lives_no_longer_than_its_own_max_age() -> None:
    cache = tier(KindPolicy(ttl=300, jitter=0))
    fill(cache, "a", 1, max_age=2)
    assert cache.get(KIND, "a", 1.9) == 1
    assert cache.get(KIND, "a", 2) is MISS
    assert not fill(cache, "b", 1, max_age=0)
    assert not fill(cache, "b", 1, max_age=-1)
    assert cache.get(KIND, "b", 0) is MISS


def test_absence_is_known_briefly() -> None:
    cache = tier()
    assert cache.get(KIND, "a", 0) is MISS
    fill(cache, "a", None)
    assert cache.get(KIND, "a", 4) is ABSENT
    assert cache.get(KIND, "a", 5) is MISS


def test_the_least_recently_used_value_goes_first() -> None:
    cache = tier()
    for key in "abc":
        fill(cache, key, key)
    cache.get(KIND, "a", 1)
    fill(cache, "d", "d")
    assert [cache.get(KIND, key, 1) for key in "abcd"] == ["a", MISS, "c", "d"]


def test_a_flood_of_unknown_keys_evicts_no_value() -> None:
    cache = tier()
    for key in "abc":
        fill(cache, key, key)
    for number in range(1_000):
        fill(cache, f"random-{number}", None)
    assert [cache.get(KIND, key, 1) for key in "abc"] == ["a", "b", "c"]
    assert cache.size() == {(KIND, "value"): 3, (KIND, "absent"): 2}


def test_a_load_that_an_invalidation_overtook_is_not_stored() -> None:
    cache = tier()
    ticket = cache.begin_load(KIND, "a")
    assert cache.invalidate([(KIND, "a")]) == 0
    assert not cache.finish_load(ticket, Loaded("old"), 0)
    assert cache.get(KIND, "a", 0) is MISS


def test_of_two_loads_only_the_later_one_may_fill() -> None:
    cache = tier()
    old = cache.begin_load(KIND, "a")
    cache.invalidate([(KIND, "a")])
    new = cache.begin_load(KIND, "a")
    assert cache.finish_load(new, Loaded("new"), 0)
    assert not cache.finish_load(old, Loaded("old"), 0)
    assert cache.get(KIND, "a", 0) == "new"


def test_a_flush_evicts_all_and_voids_all() -> None:
    cache = tier()
    fill(cache, "a", 1)
    fill(cache, "b", None)
    ticket = cache.begin_load(KIND, "c")
    assert cache.flush() == 2
    assert not cache.finish_load(ticket, Loaded(1), 0)
    assert [cache.get(KIND, key, 0) for key in "abc"] == [MISS, MISS, MISS]


def test_invalidation_counts_entries_and_passes_over_unknown_kinds() -> None:
    cache = tier()
    fill(cache, "a", 1)
    fill(cache, "b", None)
    assert cache.invalidate([(KIND, "a"), (KIND, "b"), (KIND, "c"), ("of another version", "a")]) == 2


def test_a_kind_without_a_policy_is_a_programming_error() -> None:
    with pytest.raises(KeyError):
        tier().get("nonsense", "a", 0)
    with pytest.raises(KeyError):
        tier().begin_load("nonsense", "a")


KEYS = st.sampled_from(["a", "b", "c", "d"])


class CacheAside(RuleBasedStateMachine):
    """Readers and writers in every order: the database holds a version a key; a load reads it when it begins.

    No value older than the last invalidation of its key is ever returned, however late it was filled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cache = tier()
        self.now = 0.0
        self.database: dict[str, int | None] = {}
        self.invalidated: dict[str, set[int | None]] = {}
        """Per key: what may still be returned, the states since the last invalidation."""
        self.loads: list[tuple[Ticket, str, int | None]] = []
        self.version = 0

    def state(self, key: str) -> int | None:
        return self.database.get(key)

    @rule(key=KEYS, delete=st.booleans())
    def commit(self, key: str, delete: bool) -> None:
        self.version += 1
        self.database[key] = None if delete else self.version
        self.invalidated.setdefault(key, {None}).add(self.database[key])

    @rule(keys=st.sets(KEYS, min_size=1))
    def invalidate(self, keys: set[str]) -> None:
        self.cache.invalidate([(KIND, key) for key in keys])
        for key in keys:
            self.invalidated[key] = {self.state(key)}

    @rule()
    def flush(self) -> None:
        self.cache.flush()
        for key in "abcd":
            self.invalidated[key] = {self.state(key)}

    @rule(key=KEYS)
    def begin(self, key: str) -> None:
        self.loads.append((self.cache.begin_load(KIND, key), key, self.state(key)))

    @precondition(lambda self: self.loads)
    @rule(data=st.data(), max_age=st.none() | st.floats(0, 400))
    def finish(self, data: st.DataObject, max_age: float | None) -> None:
        ticket, _, value = self.loads.pop(data.draw(st.integers(0, len(self.loads) - 1)))
        self.cache.finish_load(ticket, Loaded(value, max_age), self.now)

    @precondition(lambda self: self.loads)
    @rule()
    def abandon(self) -> None:
        self.cache.abandon_load(self.loads.pop()[0])

    @rule(seconds=st.floats(0, 200))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def nothing_older_than_the_last_invalidation(self) -> None:
        for key in "abcd":
            value = self.cache.get(KIND, key, self.now)
            if value is not MISS:
                assert (None if value is ABSENT else value) in self.invalidated.get(key, {None})

    @invariant()
    def bounded(self) -> None:
        assert self.cache.size()[KIND, "value"] <= POLICY.max_entries
        assert self.cache.size()[KIND, "absent"] <= POLICY.max_absent


TestCacheAside = CacheAside.TestCase
