"""RateLimit fields on the wire."""

import pytest

from actors.rate_limiter.headers import RateLimitHeaders, quoted
from actors.rate_limiter.messages import LimitState, Verdict

CALLER = LimitState("caller", 600, 60, 42, 2)
ADDRESS = LimitState("address", 3000, 60, 299, 1)


def test_an_admitted_request_shows_policy_and_state() -> None:
    assert RateLimitHeaders().build(Verdict(0, (), (CALLER, ADDRESS))) == [
        (b"ratelimit-policy", b'"caller";q=600;w=60, "address";q=3000;w=60'),
        (b"ratelimit", b'"caller";r=42;t=2, "address";r=299;t=1'),
    ]


def test_a_refusal_also_shows_when_to_come_again_and_never_earlier_than_t() -> None:
    empty = LimitState("caller", 600, 60, 0, 6)
    headers = RateLimitHeaders().build(Verdict(1, ("caller",), (empty,)))
    assert headers[1:] == [(b"ratelimit", b'"caller";r=0;t=1'), (b"retry-after", b"1")]


def test_the_policy_follows_a_reload() -> None:
    headers = RateLimitHeaders()
    headers.build(Verdict(0, (), (CALLER,)))
    changed = LimitState("caller", 10, 1, 9, 1)
    assert headers.build(Verdict(0, (), (changed,)))[0] == (b"ratelimit-policy", b'"caller";q=10;w=1')


def test_without_a_limit_there_are_no_headers() -> None:
    assert RateLimitHeaders().build(Verdict(0, (), ())) == []


def test_names_are_structured_field_strings() -> None:
    assert quoted('a"b\\c') == '"a\\"b\\\\c"'
    for name in ("größe", "a\r\nb"):
        with pytest.raises(ValueError):
            quoted(name)
