"""Evictions that are owed: none is forgotten, and none held back once it is confirmed."""

from hypothesis import given
from hypothesis import strategies as st

from actors.cache_manager.unconfirmed import Eviction, Unconfirmed

A, B, C = ("k", "a"), ("k", "b"), ("k", "c")


def test_what_is_added_is_held_until_it_is_confirmed() -> None:
    owed = Unconfirmed()
    owed.add([A, B])
    assert owed.holds(A)
    assert not owed.holds(C)
    eviction = owed.next(10)
    assert eviction is not None
    assert eviction.names == (A, B)
    assert owed.holds(A), "taken is not confirmed"
    owed.confirm(eviction)
    assert (owed.holds(A), len(owed), owed.next(10)) == (False, 0, None)


def test_asked_for_again_while_it_is_under_way_it_needs_another_round_trip() -> None:
    owed = Unconfirmed()
    owed.add([A])
    first = owed.next(10)
    owed.add([A])
    assert first is not None
    owed.confirm(first)
    assert owed.holds(A)


def test_too_many_become_everything_which_one_new_epoch_cures() -> None:
    owed = Unconfirmed(limit=2)
    owed.add([A, B, C])
    assert owed.holds(("other", "x"))
    eviction = owed.next(10)
    assert eviction is not None
    assert eviction.names is None
    owed.add([C])
    owed.confirm(eviction)
    assert not owed.holds(A)
    assert owed.holds(C), "asked for after the epoch was begun"


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sets(st.sampled_from([A, B, C]), min_size=1)),
        st.tuples(st.sampled_from(["everything", "take", "confirm", "drop"]), st.just(frozenset())),
    ),
    max_size=30,
)


@given(steps, st.integers(1, 3), st.integers(1, 3))
def test_it_holds_what_no_confirmed_round_trip_began_after(
    plan: list[tuple[str, set[tuple[str, str]]]], limit: int, most: int
) -> None:
    owed = Unconfirmed(limit)
    owing: dict[tuple[str, str], int] = {}
    under_way: list[tuple[int, Eviction]] = []
    for now, (what, names) in enumerate(plan):
        if what == "add":
            owed.add(sorted(names))
            owing |= dict.fromkeys(names, now)
        elif what == "everything":
            owed.add_everything()
            owing |= dict.fromkeys([A, B, C], now)
        elif what == "take" and (eviction := owed.next(most)) is not None:
            under_way.append((now, eviction))
        elif under_way:
            began, eviction = under_way.pop(0)
            if what == "confirm":
                owed.confirm(eviction)
                for name in list(owing) if eviction.names is None else eviction.names:
                    if owing.get(name, now) < began:
                        del owing[name]
        for name in owing:
            assert owed.holds(name)
    for _ in range(20):
        if (eviction := owed.next(most)) is not None:
            owed.confirm(eviction)
    assert not any(owed.holds(name) for name in (A, B, C)), "what is confirmed is not held for ever"
