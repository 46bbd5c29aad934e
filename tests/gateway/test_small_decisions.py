"""Ids, trace contexts, buckets, identity and forwarded headers: small functions of values."""

import uuid
from typing import Any

import pytest

from actors.authenticator.messages import Principal
from actors.rate_limiter.messages import Limit, LimitState, Verdict
from backends.ports.engine import Health
from gateway.admin.readiness import Readiness, readiness
from gateway.forwarding import request_headers, response_headers
from gateway.identity import identity_headers, without_identity
from gateway.ids import new_id
from gateway.limits import LimitPlan, together
from gateway.request import Headers, Request
from gateway.trace import traceparent

VALID = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_an_id_is_a_version_7_uuid_of_its_time() -> None:
    made = uuid.UUID(new_id(lambda: 1_700_000_000_123_000_000, lambda count: b"\xff" * count))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == 1_700_000_000_123


def test_ids_sort_by_their_time_within_a_millisecond_too() -> None:
    times = [1_700_000_000_000_000_000 + step * 1_000 for step in range(2_000)]
    made = [new_id(lambda at=at: at) for at in times]  # type: ignore[misc]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_a_valid_trace_context_is_taken() -> None:
    assert traceparent([VALID]) == VALID.decode()
    assert traceparent([b"01" + VALID[2:] + b"-more"]) == "01" + VALID[2:].decode() + "-more"


@pytest.mark.parametrize(
    "values",
    [
        [],
        [VALID, VALID],
        [b""],
        [VALID.upper()],
        [VALID + b"-more"],
        [b"ff" + VALID[2:]],
        [b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01"],
        [b"00-4bf92f3577b34da6a3ce929d0e0e4736-" + b"0" * 16 + b"-01"],
        [VALID + b"x"],
        [b"01" + VALID[2:] + b"-" + b"x" * 300],
    ],
)
def test_an_invalid_trace_context_is_none(values: list[bytes]) -> None:
    assert traceparent(values) == ""


PLAN = LimitPlan(
    [
        Limit("caller", "token", 600, 60, 60),
        Limit("address", "address", 3000, 60, 300),
        Limit("who", "subject", 9, 60, 3),
    ]
)


def test_a_token_limit_counts_by_token_and_falls_back_to_the_address() -> None:
    assert PLAN.before_authentication("192.0.2.1", "d1") == (("caller", "token:d1"), ("address", "address:192.0.2.1"))
    assert PLAN.before_authentication("192.0.2.1", None)[0] == ("caller", "address:192.0.2.1")


def test_subject_limits_follow_authentication() -> None:
    assert PLAN.after_authentication("alice") == (("who", "subject:alice"),)


def test_an_unknown_kind_of_limit_is_an_error() -> None:
    with pytest.raises(ValueError, match="must be token, address or subject"):
        LimitPlan([Limit("x", "planet", 1, 1, 1)])


def test_the_verdicts_of_one_request_are_told_together() -> None:
    first = Verdict(0, (), (LimitState("caller", 600, 60, 5, 1),))
    second = Verdict(3, ("who",), (LimitState("who", 9, 60, 0, 3),))
    assert together(None, first) is first
    assert together(first, second) == Verdict(3, ("who",), (*first.states, *second.states))


def test_identity_headers_of_a_caller_are_taken_away_in_every_spelling() -> None:
    headers: Headers = [
        (b"x-weir-subject", b"root"),
        (b"x_weir_scopes", b"*"),
        (b"x-other", b"1"),
        (b"x-weir_new", b"1"),
    ]
    assert without_identity(headers) == [(b"x-other", b"1")]
    clean: Headers = [(b"x-other", b"1")]
    assert without_identity(clean) is clean


def test_a_principal_is_told_in_ascii() -> None:
    principal = Principal("zoë\r\n", frozenset({"b", "a"}), "cli", 0.0, "d")
    assert identity_headers(principal) == [(b"x-weir-subject", b"zo%C3%AB%0D%0A"), (b"x-weir-scopes", b"a b")]
    assert identity_headers(None) == []


def forwarded(*headers: tuple[bytes, bytes], consumed: bool = True, **values: str) -> Headers:
    request = Request("GET", "/o", b"", list(headers), b"", "192.0.2.1", "req-1", peer=values.pop("peer", "192.0.2.1"))
    request.traceparent = values.pop("traceparent", "")
    return request_headers(request, consumed_authorization=consumed)


def test_fields_of_one_hop_stay_behind() -> None:
    sent = dict(
        forwarded(
            (b"connection", b"keep-alive, X-Secret"),
            (b"x-secret", b"1"),
            (b"keep-alive", b"5"),
            (b"te", b"trailers"),
            (b"transfer-encoding", b"chunked"),
            (b"proxy-authorization", b"Basic x"),
            (b"upgrade", b"h2c"),
            (b"expect", b"100-continue"),
            (b"accept", b"*/*"),
        )
    )
    assert sent[b"accept"] == b"*/*"
    assert (
        not {b"connection", b"x-secret", b"keep-alive", b"te", b"transfer-encoding", b"upgrade", b"expect"}
        & sent.keys()
    )
    assert b"proxy-authorization" not in sent


def test_where_a_request_came_from_is_told() -> None:
    sent = dict(forwarded((b"host", b"api.example"), peer="192.0.2.1"))
    assert sent[b"x-forwarded-for"] == b"192.0.2.1"
    assert sent[b"x-forwarded-proto"] == b"http"
    assert sent[b"x-forwarded-host"] == b"api.example"
    assert sent[b"host"] == b"api.example"
    assert sent[b"via"] == b"1.1 weir"
    assert sent[b"x-request-id"] == b"req-1"


def test_the_chain_of_a_trusted_proxy_goes_on() -> None:
    sent = dict(forwarded((b"x-forwarded-for", b"192.0.2.1"), (b"via", b"1.1 edge"), peer="10.0.0.1"))
    assert sent[b"x-forwarded-for"] == b"192.0.2.1, 10.0.0.1"
    assert sent[b"via"] == b"1.1 edge, 1.1 weir"


def test_a_checked_token_stays_here_and_an_unchecked_one_goes_on() -> None:
    assert b"authorization" not in dict(forwarded((b"authorization", b"Bearer t")))
    assert dict(forwarded((b"authorization", b"Basic t"), consumed=False))[b"authorization"] == b"Basic t"


def test_cookies_become_one_field() -> None:
    assert dict(forwarded((b"cookie", b"a=1"), (b"cookie", b"b=2")))[b"cookie"] == b"a=1; b=2"


def test_an_invalid_trace_context_is_not_sent_on() -> None:
    assert b"traceparent" not in dict(forwarded((b"traceparent", b"junk")))
    assert dict(forwarded(traceparent=VALID.decode()))[b"traceparent"] == VALID


def test_fields_of_one_hop_stay_behind_on_the_way_back() -> None:
    given: Headers = [
        (b"connection", b"x-a"),
        (b"x-a", b"1"),
        (b"server", b"s"),
        (b"content-length", b"5"),
        (b"etag", b"e"),
    ]
    assert response_headers(given, head=False) == [(b"etag", b"e"), (b"via", b"1.1 weir")]
    assert (b"content-length", b"5") in response_headers(given, head=True)


def test_an_engine_that_is_away_degrades_readiness_and_does_not_end_it() -> None:
    def node(id: str, **detail: str) -> dict[str, Any]:
        return {"id": id, "state": "ready", "state_age": 9.0, "last_error": None, "detail": detail}

    away = node("redis", degraded="redis://h is away: refused")
    for nodes, expected in (
        ([node("router")], Readiness(True, False, ())),
        ([node("router"), away], Readiness(True, True, ("redis: redis://h is away: refused",))),
        ([{**node("router"), "state": "backoff"}, away], Readiness(False, False, ("router is backoff",
                                                                                "redis: redis://h is away: refused"))),
    ):  # fmt: skip
        found = readiness(
            {"children": nodes}, started=True, draining=False, request_path={"router"}, engine=Health(True)
        )
        assert found == expected
