"""What a page of another origin may read."""

import pytest

from gateway.cors import CorsPolicy, decorate, is_preflight, preflight
from gateway.request import Headers, Request

APP = b"https://app.example"
POLICY = CorsPolicy(origins=frozenset({"https://app.example"}), max_age=600)


def ask(*headers: tuple[bytes, bytes], method: str = "OPTIONS") -> Request:
    return Request(method, "/users", b"", list(headers), b"", "192.0.2.1", "id")


def wish(origin: bytes, *more: tuple[bytes, bytes]) -> Request:
    return ask((b"origin", origin), (b"access-control-request-method", b"PUT"), *more)


def test_a_preflight_is_options_with_both_headers() -> None:
    assert is_preflight(wish(APP))
    assert not is_preflight(ask((b"origin", APP)))
    assert not is_preflight(ask((b"access-control-request-method", b"PUT")))
    assert not is_preflight(ask((b"origin", APP), (b"access-control-request-method", b"PUT"), method="GET"))


def test_an_allowed_preflight_names_what_is_allowed() -> None:
    answer = preflight(POLICY, wish(APP, (b"access-control-request-headers", b"authorization, if-match")))
    headers = dict(answer.headers)
    assert answer.status == 204
    assert headers[b"access-control-allow-origin"] == APP
    assert b"PUT" in headers[b"access-control-allow-methods"]
    assert headers[b"access-control-allow-headers"] == b"authorization, if-match"
    assert headers[b"access-control-max-age"] == b"600"
    assert headers[b"vary"] == b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    assert b"access-control-allow-credentials" not in headers


@pytest.mark.parametrize(
    "origin", [b"https://evil.example", b"https://app.example.evil.example", b"null", b"HTTPS://APP.EXAMPLE", b"\xff"]
)
def test_a_preflight_of_another_origin_is_told_nothing(origin: bytes) -> None:
    answer = preflight(POLICY, wish(origin))
    assert answer.status == 204
    assert [name for name, _ in answer.headers] == [b"vary"]


def test_header_names_that_are_none_are_not_echoed() -> None:
    answer = preflight(POLICY, wish(APP, (b"access-control-request-headers", b"x\r\nset-cookie: a")))
    assert b"access-control-allow-headers" not in dict(answer.headers)


def test_credentials_are_allowed_where_configured() -> None:
    policy = CorsPolicy(origins=POLICY.origins, allow_credentials=True)
    assert dict(preflight(policy, wish(APP)).headers)[b"access-control-allow-credentials"] == b"true"
    assert dict(decorate(policy, APP, []))[b"access-control-allow-credentials"] == b"true"


def test_everyone_with_credentials_is_no_policy() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        CorsPolicy(origins=frozenset({"*"}), allow_credentials=True)


@pytest.mark.parametrize("origin", [None, APP, b"https://evil.example"])
@pytest.mark.parametrize("policy", [POLICY, CorsPolicy(), CorsPolicy(origins=frozenset({"*"}))])
def test_every_response_varies_by_origin(policy: CorsPolicy, origin: bytes | None) -> None:
    assert (b"vary", b"Origin") in decorate(policy, origin, [])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([(b"vary", b"Accept")], b"Accept, Origin"),
        ([(b"vary", b"accept, origin")], b"accept, origin"),
        ([(b"vary", b"*")], b"*"),
    ],
)
def test_what_a_target_varies_by_is_kept(given: Headers, expected: bytes) -> None:
    assert dict(decorate(POLICY, None, given))[b"vary"] == expected


def test_an_allowed_origin_may_read_our_headers() -> None:
    headers = dict(decorate(POLICY, APP, []))
    assert headers[b"access-control-allow-origin"] == APP
    assert b"X-Request-Id" in headers[b"access-control-expose-headers"]


def test_a_denied_origin_gets_no_permission() -> None:
    assert all(not name.startswith(b"access-control-") for name, _ in decorate(POLICY, b"https://evil.example", []))


def test_everyone_is_a_star() -> None:
    assert dict(decorate(CorsPolicy(origins=frozenset({"*"})), APP, []))[b"access-control-allow-origin"] == b"*"


def test_a_targets_own_permissions_are_replaced() -> None:
    own = [(b"access-control-allow-origin", b"*"), (b"access-control-allow-credentials", b"true"), (b"etag", b'"1"')]
    headers = decorate(POLICY, APP, own)
    assert [value for name, value in headers if name == b"access-control-allow-origin"] == [APP]
    assert b"access-control-allow-credentials" not in dict(headers)
    assert (b"etag", b'"1"') in headers
    assert own[0] == (b"access-control-allow-origin", b"*")  # given headers stay as they are
