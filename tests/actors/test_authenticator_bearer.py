"""The Authorization header, as RFC 6750 has it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.authenticator.bearer import HeaderFault, parse_authorization

B64TOKEN = "ABCXYZabcxyz0189-._~+/"


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER", b"bEaReR"])
def test_the_scheme_is_case_insensitive(scheme: bytes) -> None:
    assert parse_authorization([scheme + b" abc"]) == b"abc"


@given(st.text(B64TOKEN, min_size=1, max_size=80), st.integers(0, 3), st.integers(1, 3))
def test_every_b64token_is_taken_as_it_is(body: str, padding: int, spaces: int) -> None:
    token = (body + "=" * padding).encode()
    assert parse_authorization([b"Bearer" + b" " * spaces + token]) == token


@pytest.mark.parametrize("values", [[], [b"Basic dXNlcjpwYXNz"], [b'Digest username="x", realm="y"'], [b"Bearerx abc"]])
def test_no_header_and_other_schemes_are_no_credentials(values: list[bytes]) -> None:
    assert parse_authorization(values) is None


@pytest.mark.parametrize(
    "values",
    [
        [b""],
        [b"  "],
        [b"Bearer"],
        [b"Bearer "],
        [b"Bearer a b"],
        [b"Bearer a, Bearer b"],
        [b"Bearer\tabc"],
        [b"Bearer a\tb"],
        [b"=abc"],
        [b"Bearer a", b"Bearer a"],
        [b"Bearer a", b"Basic b"],
    ],
)
def test_a_malformed_or_repeated_header_is_an_invalid_request(values: list[bytes]) -> None:
    assert parse_authorization(values) is HeaderFault.MALFORMED_HEADER


@pytest.mark.parametrize("token", [b"a$b", b"=", b"a=b", b'"abc"', b"\xff\xfe", b"a,b", b"a\x00b", b"a\n"])
def test_a_word_that_is_no_b64token_is_an_invalid_token(token: bytes) -> None:
    assert parse_authorization([b"Bearer " + token]) is HeaderFault.MALFORMED_TOKEN


@given(st.lists(st.binary(max_size=40), max_size=3))
def test_any_bytes_get_an_answer(values: list[bytes]) -> None:
    result = parse_authorization(values)
    assert result is None or isinstance(result, HeaderFault | bytes)
