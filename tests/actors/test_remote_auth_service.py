"""The client of an Auth Service elsewhere, on a real one that behaves in every way but one."""

import base64
import socket
import time
from collections.abc import Iterator

import pytest
import trio

from actors.authenticator.messages import AuthServiceAway, UnusableAnswer
from actors.authenticator.remote import BODY_LIMIT, RemoteAuthService, basic
from tests.engines.auth_service import AuthServiceServer, Reply, hangs, http, says


@pytest.fixture
def service() -> Iterator[AuthServiceServer]:
    server = AuthServiceServer().start()
    yield server
    server.stop()


def client_of(service: AuthServiceServer, authorization: str = "", *, connections: int = 4) -> RemoteAuthService:
    return RemoteAuthService(service.url, authorization, connections=connections)


async def ask(service: AuthServiceServer, token: bytes = b"t") -> bytes:
    client = client_of(service)
    try:
        with trio.fail_after(10):
            return await client.introspect(token)
    finally:
        await client.aclose()


async def test_it_asks_as_rfc_7662_has_it_on_one_connection(service: AuthServiceServer) -> None:
    service.issue("a+/=~._-b")
    client = client_of(service, basic("i:d", "p&s s"))
    for _ in range(3):
        assert b'"active": true' in await client.introspect(b"a+/=~._-b")
    assert b'"active": false' in await client.introspect(b"other")
    await client.aclose()
    assert service.questions == ["a+/=~._-b"] * 3 + ["other"]
    head = service.heads[0].lower()
    assert head.startswith("post /introspect http/1.1")
    assert "content-type: application/x-www-form-urlencoded" in head
    assert "accept: application/json" in head
    assert base64.b64encode(b"i%3Ad:p%26s+s").decode().lower() in head


async def test_it_may_prove_itself_with_a_token_of_its_own(service: AuthServiceServer) -> None:
    client = client_of(service, "Bearer ours")
    await client.introspect(b"t")
    await client.aclose()
    assert "authorization: bearer ours" in service.heads[0].lower()


async def test_a_kept_connection_that_was_closed_meanwhile_costs_nothing(service: AuthServiceServer) -> None:
    client = client_of(service)
    await client.introspect(b"t")
    service.stop()
    service.start()
    assert b"active" in await client.introspect(b"t")
    await client.aclose()


async def test_a_connection_that_drops_as_the_question_goes_out_is_tried_once_more(service: AuthServiceServer) -> None:
    def drops_once(connection: socket.socket, token: str) -> None:
        service.reply = None
        drops(connection, token)

    service.reply = drops_once
    assert b"active" in await ask(service)
    assert service.questions == ["t", "t"]


def endless(connection: socket.socket, token: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"1000\r\n" + b" " * 4096 + b"\r\n")


def drops(connection: socket.socket, token: str) -> None:
    connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (says(http("", "302 Found", "Location: /login")), "302, a redirect"),
        (says(http("{}", "500 Internal Server Error")), "500"),
        (says(http("{}", "404 Not Found")), "404"),
        (says(http("{}", "429 Too Many Requests", "Retry-After: 60")), "429"),
        (says(http("{}", "204 No Content")), "204"),
        (says(http(b" " * 10_000_000)), "longer"),
        (says(http("{}", "200 OK", "Content-Encoding: gzip")), "compresses"),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "cannot be asked"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Length: 1\r\n\r\n{}"), "cannot be asked"),
        (endless, "longer"),
        (drops, "cannot be asked"),
    ],
)
async def test_whatever_is_no_answer_is_away_and_nothing_of_it_is_left_open(
    service: AuthServiceServer, reply: Reply, told: str
) -> None:
    service.reply = reply
    with pytest.raises(AuthServiceAway) as away:
        await ask(service)
    assert told in str(away.value)
    assert not away.value.refused


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_credentials_that_are_refused_are_named(service: AuthServiceServer, status: str) -> None:
    service.reply = says(http("{}", status))
    with pytest.raises(AuthServiceAway) as away:
        await ask(service)
    assert away.value.refused
    assert "auth.introspection_client_id" in str(away.value)


async def test_an_odd_token_is_no_fault_of_the_service(service: AuthServiceServer) -> None:
    service.reply = says(http("{}", "400 Bad Request"))
    with pytest.raises(UnusableAnswer):
        await ask(service)


async def test_a_service_that_is_not_there_is_away_with_the_reason(service: AuthServiceServer) -> None:
    service.stop()
    with pytest.raises(AuthServiceAway) as away:
        await ask(service)
    assert "ConnectError" in str(away.value)


async def test_one_that_hangs_holds_nobody_beyond_the_callers_deadline(service: AuthServiceServer) -> None:
    service.reply = hangs
    client = client_of(service, connections=1)
    began = time.monotonic()
    for _ in range(3):  # and a place among the connections is free again each time
        with trio.move_on_after(0.2) as scope:
            await client.introspect(b"t")
        assert scope.cancelled_caught
    assert time.monotonic() - began < 5
    service.reply = None
    assert b"active" in await client.introspect(b"t")
    await client.aclose()


async def test_an_answer_may_be_as_long_as_the_limit(service: AuthServiceServer) -> None:
    body = b'{"active": false}'.ljust(BODY_LIMIT)
    service.reply = says(http(body))
    assert await ask(service) == body
