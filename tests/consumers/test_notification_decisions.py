"""The pure parts of sending: signatures, addresses, and what becomes of a delivery after an attempt."""

from base64 import b64encode
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as Receiver

from actors.consumers.failure import Failure
from actors.consumers.notification.addresses import is_public
from actors.consumers.notification.outcomes import Away, Failed, Refused, Sent, Withdrawn, retry_after, settle
from actors.consumers.notification.signature import InvalidSecret, sign
from actors.consumers.retry import RetryPolicy
from backends.ports.stores import Delivery
from tests.consumers.receivers import SECRET

# -- signing -----------------------------------------------------------------------------------------------


def test_the_signature_is_the_specifications_example() -> None:
    body = b'{"test": 2432232314}'
    signature = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.binary(min_size=24, max_size=64), st.text())
def test_the_reference_library_makes_the_same_signature(key: bytes, body: str) -> None:
    secret = "whsec_" + b64encode(key).decode()
    body = body.encode("utf-8", "ignore").decode()
    expected = Receiver(secret).sign("msg_1", datetime.fromtimestamp(1_700_000_000, UTC), body)
    assert sign(secret, "msg_1", 1_700_000_000, body.encode()) == expected


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64!"])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(InvalidSecret):
        sign(secret, "msg_1", 1, b"")


def test_an_id_with_a_full_stop_would_be_ambiguous() -> None:
    with pytest.raises(ValueError, match="full stop"):
        sign(SECRET, "a.b", 1, b"")


# -- addresses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fd00::1", "fc00::1", "ff02::1", "2001:db8::1", "fec0::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::7f00:1", "::10.0.0.1", "::ffff:0:7f00:1"),
        *(
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b:1::7f00:1",
            "2001:0:a00:1::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
        ),
        *("localhost", "2130706433", ""),
    ],
)
def test_no_webhook_reaches_an_address_of_ours(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_the_rest_of_the_world_is_reached(address: str) -> None:
    assert is_public(address)


# -- outcomes ----------------------------------------------------------------------------------------------

ROW = Delivery(
    id="msg_1", channel="webhook", endpoint="a", event_id="e", event_type="user.created", source="t/0/0", payload=b""
)
FAILURE = Failure("HTTPStatus", "500")


def test_a_delivery_is_done_when_it_was_sent() -> None:
    settled = settle(ROW, Sent(), RetryPolicy(), 9.0, 1.0)
    assert (settled.delivery.state, settled.delivery.attempts, settled.dead_letter) == ("done", 1, None)


def test_the_third_failure_makes_it_a_dead_letter() -> None:
    row, dues = ROW, []
    for now in (10.0, 20.0, 30.0):
        settled = settle(row, Failed(FAILURE), RetryPolicy(), now, 1.0)
        row = settled.delivery
        dues.append((row.attempts, row.due_at, settled.dead_letter))
    assert dues == [(1, 10.5, None), (2, 21.0, None), (3, 30.0, FAILURE)]
    assert (row.first_at, row.last_at, row.error) == (10.0, 30.0, "HTTPStatus: 500")


def test_a_refusal_makes_it_one_at_once() -> None:
    settled = settle(ROW, Refused(FAILURE), RetryPolicy(), 1.0, 1.0)
    assert (settled.dead_letter, settled.delivery.attempts) == (FAILURE, 1)


def test_a_withdrawn_endpoint_makes_no_dead_letter() -> None:
    settled = settle(ROW, Withdrawn("deleted"), RetryPolicy(), 1.0, 1.0)
    assert (settled.delivery.state, settled.dead_letter, settled.delivery.error) == ("withdrawn", None, "deleted")


def test_an_outage_of_our_own_is_no_attempt() -> None:
    settled = settle(ROW, Away("storage"), RetryPolicy(), 1.0, 1.0)
    assert (settled.delivery.state, settled.delivery.attempts, settled.delivery.due_at) == ("pending", 0, 1.5)


def test_retry_after_lengthens_the_wait_up_to_an_hour() -> None:
    assert settle(ROW, Failed(FAILURE, 7.0), RetryPolicy(), 1.0, 1.0).delivery.due_at == 8.0
    assert settle(ROW, Failed(FAILURE, 0.1), RetryPolicy(), 1.0, 1.0).delivery.due_at == 1.5
    assert settle(ROW, Failed(FAILURE, 1e9), RetryPolicy(), 1.0, 1.0).delivery.due_at == 3601.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *(("120", 120.0), ("9" * 400, 999_999_999.0), ("-5", 0.0), ("soon", 0.0), ("", 0.0), ("²", 0.0)),
        *(("Thu, 01 Jan 1970 00:01:40 GMT", 90.0), ("Wed, 31 Dec 1969 00:00:00 GMT", 0.0)),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float) -> None:
    assert retry_after(value, 10.0) == seconds
