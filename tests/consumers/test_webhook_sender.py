"""Calling webhooks over HTTP: signatures, outcomes, timeouts, and the guard against private addresses."""

import time

import msgspec
import pytest
import trio
from standardwebhooks.webhooks import Webhook as Receiver
from standardwebhooks.webhooks import WebhookVerificationError

from actors.consumers.notification.deliveries_of import Retired, Webhook
from actors.consumers.notification.outcomes import Failed, Gone, Refused, Sent
from tests.consumers.receivers import BODY, SECRET, Endpoint, hook, sender, webhook_row

pytestmark = pytest.mark.process

OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDuR3+1jNPb1s="


async def test_a_receiver_can_verify_what_it_gets(endpoint: Endpoint) -> None:
    async with sender() as webhooks:
        assert await webhooks.send(hook(endpoint), webhook_row()) == Sent()
    ((line, headers, body),) = endpoint.requests
    assert line == "POST /hook?x=1 HTTP/1.1"
    assert body == BODY
    assert headers["webhook-id"] == "msg_1"
    assert headers["content-type"] == "application/json"
    assert headers["host"] == f"127.0.0.1:{endpoint.port}"
    Receiver(SECRET).verify(body, headers)


async def test_each_attempt_has_its_own_timestamp_and_the_same_id(endpoint: Endpoint) -> None:
    times = iter([1_700_000_000.9, 1_700_000_060.0])
    async with sender(now=lambda: next(times)) as webhooks:
        for _ in range(2):
            await webhooks.send(hook(endpoint), webhook_row())
    (_, first, _), (_, second, _) = endpoint.requests
    assert (first["webhook-timestamp"], second["webhook-timestamp"]) == ("1700000000", "1700000060")
    assert first["webhook-id"] == second["webhook-id"]
    assert first["webhook-signature"] != second["webhook-signature"]


async def test_a_receiver_that_knows_either_secret_can_verify_while_they_change(endpoint: Endpoint) -> None:
    rotated = msgspec.structs.replace(hook(endpoint), secret=OTHER, retired=(Retired(SECRET, time.time() + 60),))
    async with sender() as webhooks:
        assert await webhooks.send(rotated, webhook_row()) == Sent()
    ((_, headers, body),) = endpoint.requests
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (SECRET, OTHER):
        Receiver(secret).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Receiver("whsec_" + "A" * 32).verify(body, headers)


async def test_a_replaced_secret_signs_no_longer_than_it_may(endpoint: Endpoint) -> None:
    rotated = msgspec.structs.replace(hook(endpoint), secret=OTHER, retired=(Retired(SECRET, time.time() - 1),))
    async with sender() as webhooks:
        assert await webhooks.send(rotated, webhook_row()) == Sent()
    ((_, headers, body),) = endpoint.requests
    Receiver(OTHER).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Receiver(SECRET).verify(body, headers)


@pytest.mark.parametrize("status", ["301 Moved", "400 Bad Request", "404 Not Found", "500 Oops", "503 Later"])
async def test_only_2xx_is_success_and_no_redirect_is_followed(endpoint: Endpoint, status: str) -> None:
    location = f"Location: http://127.0.0.1:{endpoint.port}/other\r\n"
    endpoint.answer = f"HTTP/1.1 {status}\r\n{location}Content-Length: 2\r\n\r\nno".encode()
    async with sender() as webhooks:
        outcome = await webhooks.send(hook(endpoint), webhook_row())
    assert isinstance(outcome, Failed)
    assert outcome.failure.message == f"{status[:3]} no"
    assert len(endpoint.requests) == 1


async def test_gone_is_final(endpoint: Endpoint) -> None:
    endpoint.answer = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"
    async with sender() as webhooks:
        assert isinstance(await webhooks.send(hook(endpoint), webhook_row()), Gone)


async def test_retry_after_is_passed_on(endpoint: Endpoint) -> None:
    endpoint.answer = b"HTTP/1.1 429 Slow\r\nRetry-After: 17\r\nContent-Length: 0\r\n\r\n"
    async with sender() as webhooks:
        outcome = await webhooks.send(hook(endpoint), webhook_row())
    assert isinstance(outcome, Failed)
    assert outcome.retry_after == 17.0


async def test_an_endless_answer_is_not_read(endpoint: Endpoint) -> None:
    endpoint.answer = b"HTTP/1.1 500 Oops\r\nContent-Type: text/plain\r\n\r\n"
    endpoint.endless = True
    async with sender() as webhooks:
        outcome = await webhooks.send(hook(endpoint), webhook_row())
    assert isinstance(outcome, Failed)
    assert outcome.failure.message == "500"


async def test_a_receiver_that_never_answers_fails_within_the_timeout(endpoint: Endpoint) -> None:
    endpoint.silent = True
    async with sender(timeout=0.05) as webhooks:
        outcome = await webhooks.send(hook(endpoint), webhook_row())
    assert isinstance(outcome, Failed)
    assert outcome.failure.fqcn == "TimeoutError"


async def test_nobody_there_is_a_failure(endpoint: Endpoint) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    endpoint.port = listener.socket.getsockname()[1]
    await listener.aclose()
    async with sender() as webhooks:
        outcome = await webhooks.send(hook(endpoint), webhook_row())
    assert isinstance(outcome, Failed)
    assert outcome.failure.fqcn == "httpx.ConnectError"


async def test_the_next_address_of_a_host_is_tried(endpoint: Endpoint) -> None:
    async def two(host: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    async with sender(resolver=two) as webhooks:
        assert await webhooks.send(hook(endpoint, "hooks.example"), webhook_row()) == Sent()
    assert endpoint.requests[0][1]["host"] == f"hooks.example:{endpoint.port}"


# -- the guard ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f000001", "0177.0.0.1", "127.1"),
        *("0.0.0.0", "0", "[::]", "10.0.0.1", "192.168.0.1", "169.254.169.254", "[fd00::1]", "[fe80::1]"),
        *("[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::a9fe:a9fe]", "224.0.0.1"),
    ],
)
async def test_private_endpoints_are_not_called(endpoint: Endpoint, host: str) -> None:
    async with sender(allow_private=False) as webhooks:
        outcome = await webhooks.send(hook(endpoint, host), webhook_row())
    assert isinstance(outcome, Refused)
    assert "not a public address" in outcome.failure.message or "Invalid" in outcome.failure.message
    assert endpoint.requests == []


@pytest.mark.parametrize(
    "addresses",
    [
        *(["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["0.0.0.0"], ["::"], ["::ffff:127.0.0.1"], ["::ffff:0:127.0.0.1"]),
        *(["64:ff9b::7f00:1"], ["64:ff9b:1::7f00:1"], ["fe80::1%lo"], ["169.254.169.254"], ["2002:7f00:1::1"]),
    ],
)
async def test_a_name_that_means_a_private_address_is_not_called(endpoint: Endpoint, addresses: list[str]) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        return addresses

    async with sender(allow_private=False, resolver=resolver) as webhooks:
        outcome = await webhooks.send(hook(endpoint, "innocent.example"), webhook_row())
    assert isinstance(outcome, Refused)
    assert endpoint.requests == []


async def test_a_name_is_resolved_once_so_it_cannot_change_its_mind(endpoint: Endpoint) -> None:
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.9"]

    async with sender(resolver=rebinding) as webhooks:
        assert await webhooks.send(hook(endpoint, "rebind.example"), webhook_row()) == Sent()
    assert asked == ["rebind.example"]


@pytest.mark.parametrize("url", ["ftp://x.example/", "file:///etc/passwd", "http:///x", "no url", "http://[::1", ""])
async def test_what_is_no_web_address_is_refused(url: str) -> None:
    async with sender() as webhooks:
        assert isinstance(await webhooks.send(Webhook(url, ["*"], SECRET), webhook_row()), Refused)


async def test_a_broken_secret_is_refused_and_nothing_is_sent(endpoint: Endpoint) -> None:
    async with sender() as webhooks:
        broken = msgspec.structs.replace(hook(endpoint), secret="whsec_!")
        assert isinstance(await webhooks.send(broken, webhook_row()), Refused)
    assert endpoint.requests == []
