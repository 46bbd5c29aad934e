"""What an introspection response is worth (RFC 7662 §2.2)."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.authenticator.introspection import Refused, read
from actors.authenticator.messages import AuthServiceAway, NotValidated, Principal, UnusableAnswer

NOW = 1_000.0


def judged(audience: str = "", **claims: Any) -> Principal | Refused:
    body = {"active": True, "sub": "ann", "exp": 1_060, **claims}
    return read(json.dumps({name: value for name, value in body.items() if value != ...}).encode(), "d", NOW, audience)


def test_an_active_token_is_whose_it_says() -> None:
    found = judged(scope="users:read users:write", client_id="cli", token_type="Bearer", iss="https://x", extra=[1])
    assert found == Principal("ann", frozenset({"users:read", "users:write"}), "cli", 1_060.0, "d")


@pytest.mark.parametrize(
    "body", [{"active": False}, {"active": False, "sub": 7}, {"active": False, "exp": 9_999, "sub": "ann"}]
)
def test_an_inactive_token_is_inactive_whatever_else_is_said(body: dict[str, Any]) -> None:
    assert read(json.dumps(body).encode(), "d", NOW) is Refused.INACTIVE


def test_what_is_optional_may_be_absent_or_null() -> None:
    bare = Principal("ann", frozenset(), "", math.inf, "d")
    assert judged(exp=...) == bare
    nothing = dict.fromkeys(("exp", "nbf", "scope", "client_id", "aud", "token_type", "cnf"))
    assert judged(**nothing) == bare
    assert judged(scope="") == judged()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"true", b"<html><body>Welcome</body></html>", b"{}", b'{"active": "true"}',
        b'{"active": 1}', b'{"active": null}', b'{"Active": true}', b'{"active": true', b"\xff\xfe", b"[" * 60_000,
        b'{"active": true}{"active": true}', b'{"a": ' * 10_000,
    ],
)  # fmt: skip
def test_what_is_no_introspection_response_is_nobodys_token(body: bytes) -> None:
    with pytest.raises(AuthServiceAway):
        read(body, "d", NOW)


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": ...}, {"sub": ""}, {"sub": 42}, {"sub": ["ann"]}, {"sub": "a\nb"}, {"sub": "a" * 1025},
        {"exp": NOW}, {"exp": 1}, {"exp": -1}, {"exp": "tomorrow"}, {"exp": True}, {"exp": [2_000]},
        {"nbf": NOW + 1}, {"nbf": "x"}, {"scope": 7}, {"scope": ["a"]}, {"scope": "a  b"}, {"scope": 'a "b"'},
        {"scope": "a\tb"}, {"aud": 7}, {"aud": {"a": 1}}, {"client_id": 1}, {"token_type": 1},
    ],
)  # fmt: skip
def test_an_active_token_that_contradicts_itself_is_not_believed(claims: dict[str, Any]) -> None:
    with pytest.raises(UnusableAnswer) as told:
        judged(**claims)
    assert "\n" not in str(told.value)


def test_a_token_for_others_is_not_for_us() -> None:
    assert isinstance(judged("weir", aud="weir"), Principal)
    assert isinstance(judged("weir", aud=["other", "weir"]), Principal)
    assert isinstance(judged("", aud="other"), Principal)
    assert judged("weir", aud="weir2") is Refused.FOREIGN
    assert judged("weir", aud=[]) is Refused.FOREIGN
    assert judged("weir") is Refused.FOREIGN


@pytest.mark.parametrize("claims", [{"token_type": "DPoP"}, {"token_type": "mac"}, {"cnf": {"x5t#S256": "abc"}}])
def test_a_token_that_is_bound_to_a_key_is_no_bearer_token(claims: dict[str, Any]) -> None:
    assert judged(**claims) is Refused.FOREIGN
    assert isinstance(judged(token_type="bEARER"), Principal)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["active", "sub", "exp", "nbf", "scope", "aud", "cnf", "client_id", "token_type"])


@given(st.dictionaries(NAMES, ANYTHING))
def test_whatever_is_said_only_a_whole_answer_makes_a_principal(body: dict[str, Any]) -> None:
    try:
        found = read(json.dumps(body).encode(), "d", NOW)
    except NotValidated:
        return
    if isinstance(found, Principal):
        assert body["active"] is True
        assert found.subject == body["sub"] != ""
        assert found.expires_at > NOW


@given(st.binary(max_size=200))
def test_any_bytes_are_judged(body: bytes) -> None:
    with pytest.raises(AuthServiceAway):
        read(body, "d", NOW)
