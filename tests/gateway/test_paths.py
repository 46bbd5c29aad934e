"""One canonical path; what two readers could read differently is refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.paths import PathError, canonical

SAME = [
    b"/",
    b"/users",
    b"/users/",
    b"/users/0190-a.b_c~d",
    b"/a/...",
    b"/a/.hidden",
    b"/a/b..c",
    b"/a/caf%C3%A9",
    b"/a/x%20y",
    b"/a/what%3Fever%23",
    b"/a/!$&'()*+,=:@b",
    b"/a/%25252e",
]


@pytest.mark.parametrize("raw", SAME)
def test_a_path_without_ambiguity_stays_as_it_is(raw: bytes) -> None:
    assert canonical(raw) == raw.decode()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"/%75sers", "/users"),
        (b"/a/%7euser/%2D", "/a/~user/-"),
        (b"/a/caf%c3%a9", "/a/caf%C3%A9"),
        (b"/a/{x}|<y>", "/a/%7Bx%7D%7C%3Cy%3E"),
        (b"/a/b%2ec", "/a/b.c"),
        (b"/a/%2ehidden", "/a/.hidden"),
    ],
)
def test_equivalent_spellings_become_one(raw: bytes, expected: str) -> None:
    assert canonical(raw) == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"*",
        b"users",
        b"http://host/users",
        b"host:443",
        b"//",
        b"//users",
        b"/a//b",
        b"/a/./b",
        b"/a/../b",
        b"/..",
        b"/a/.",
        b"/a/%2e",
        b"/a/%2E%2e/b",
        b"/a/.%2e",
        b"/a%2fb",
        b"/a%2Fb",
        b"/a%5cb",
        b"/a\\b",
        b"/a%00",
        b"/a%0d%0ab",
        b"/a%7f",
        b"/a%C2%85",
        b"/a\x00",
        b"/a b",
        b"/a/..;x=1/b",
        b"/a;b",
        b"/a%3bb",
        b"/a#b",
        b"/a%",
        b"/a%2",
        b"/a%zz",
        b"/a%ff",
        b"/a%C0%AF",
        b"/a%ED%A0%80",
        b"/caf\xc3\xa9",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(raw: bytes) -> None:
    with pytest.raises(PathError):
        canonical(raw)


PIECES = st.sampled_from(
    [b"/", b"a", b".", b"%2e", b"%2E", b"%41", b"%20", b"%c3%a9", b"~", b"{", b"%", b"%2f", b";", b"-", b"%25"]
)


@given(st.lists(PIECES, max_size=12).map(b"".join))
def test_the_canonical_form_is_its_own_canonical_form(raw: bytes) -> None:
    try:
        once = canonical(raw)
    except PathError:
        return
    assert canonical(once.encode()) == once


@given(st.lists(PIECES, max_size=12).map(lambda parts: b"/" + b"".join(parts)))
def test_no_canonical_path_holds_a_dot_segment_or_an_empty_one(raw: bytes) -> None:
    try:
        segments = canonical(raw)[1:].split("/")
    except PathError:
        return
    assert not {".", ".."} & set(segments)
    assert "" not in segments[:-1]


@given(st.binary(max_size=40))
def test_any_bytes_are_answered_or_refused_and_nothing_else(raw: bytes) -> None:
    with suppress(PathError):
        assert canonical(raw).isascii()
