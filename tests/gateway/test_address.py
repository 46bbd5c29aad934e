"""Whose request it is, and what limits by address count."""

from ipaddress import ip_network

import pytest

from gateway.address import LOCAL, TrustedProxies, limit_key, normalised

PROXIES = TrustedProxies([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])


def test_without_trusted_proxies_the_peer_is_the_caller() -> None:
    assert TrustedProxies().client("10.0.0.1", [b"1.2.3.4"]) == "10.0.0.1"


def test_a_stranger_who_claims_to_forward_is_not_believed() -> None:
    assert PROXIES.client("192.0.2.1", [b"1.2.3.4"]) == "192.0.2.1"


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ([b"192.0.2.7"], "192.0.2.7"),
        ([b"6.6.6.6, 192.0.2.7"], "192.0.2.7"),
        ([b"6.6.6.6, 192.0.2.7, 10.0.0.9"], "192.0.2.7"),
        ([b"6.6.6.6", b"192.0.2.7", b"10.0.0.9"], "192.0.2.7"),
        ([b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ([b"192.0.2.7:5060"], "192.0.2.7"),
        ([b"[2001:db8::7]:5060"], "2001:db8::7"),
        ([b"::ffff:192.0.2.7"], "192.0.2.7"),
        ([b"192.0.2.7, unknown"], "10.0.0.1"),
        ([b"192.0.2.7, _hidden, 10.0.0.9"], "10.0.0.9"),
        ([b""], "10.0.0.1"),
        ([], "10.0.0.1"),
        ([b"\xff\xfe"], "10.0.0.1"),
    ],
)
def test_behind_a_trusted_proxy_the_rightmost_stranger_is_the_caller(forwarded: list[bytes], expected: str) -> None:
    assert PROXIES.client("10.0.0.1", forwarded) == expected


def test_a_trusted_proxy_is_known_in_every_spelling() -> None:
    assert PROXIES.client("::ffff:10.0.0.1", [b"192.0.2.7"]) == "192.0.2.7"
    assert PROXIES.client("fd00:0::1", [b"192.0.2.7"]) == "192.0.2.7"


def test_a_peer_on_a_unix_socket_is_nobodys_proxy() -> None:
    assert PROXIES.client(LOCAL, [b"192.0.2.7"]) == LOCAL


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_one_spelling_per_address(address: str, expected: str) -> None:
    assert normalised(address) == expected


def test_ipv6_is_limited_by_its_64() -> None:
    assert limit_key("2001:db8:1:2:aaaa::1") == limit_key("2001:db8:1:2:bbbb::2") == "2001:db8:1:2::/64"
    assert limit_key("2001:db8:1:3::1") != limit_key("2001:db8:1:2::1")


def test_ipv4_is_limited_one_by_one() -> None:
    assert limit_key("192.0.2.1") == limit_key("::ffff:192.0.2.1") == "192.0.2.1"
    assert limit_key(LOCAL) == LOCAL
