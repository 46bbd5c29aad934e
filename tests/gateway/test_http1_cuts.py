"""An answer that did not get to its end must not look as if it had, and is in the log."""

import socket
import struct
from typing import Any

import pytest
import structlog
import trio

from gateway.asgi_types import Receive, Scope, Send
from gateway.request import Request, Response
from tests.gateway.serving import GET, Serving, serving, until
from tests.gateway.test_asgi import front
from tests.gateway.test_http1_limits import raw

OLD = b"GET / HTTP/1.0\r\n\r\n"
"""Its answer, without a length, ends with the connection: nothing but a reset tells a cut from an end."""


async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    while True:
        await send({"type": "http.response.body", "body": b"*" * 1000, "more_body": True})
        await trio.sleep(0.01)


async def flood(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    while True:
        await send({"type": "http.response.body", "body": b"*" * 65536, "more_body": True})


async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"half of it", "more_body": True})
    raise RuntimeError("a bug")


async def closed(here: Serving) -> None:
    await until(lambda: not here.server.connections)


@pytest.fixture
def lines() -> Any:
    with structlog.testing.capture_logs() as lines:
        yield lines


def requests(lines: list[Any]) -> list[tuple[int, bool]]:
    return [(line["status"], line.get("cut", False)) for line in lines if line["event"] == "request"]


@pytest.mark.parametrize("request_", [OLD, GET], ids=["HTTP/1.0", "HTTP/1.1"])
async def test_a_drain_that_cuts_an_answer_resets_its_connection(request_: bytes, lines: list[Any]) -> None:
    async with serving(endless) as here, await here.connect() as stream:
        await stream.send_all(request_)
        assert b"***" in await stream.receive_some() + await stream.receive_some()
        assert not await here.server.drain(0.1)
        received, was_reset = await raw(stream)
        assert was_reset
        assert not received.endswith(b"0\r\n\r\n")
        await closed(here)
    assert requests(lines) == [(200, True)]


async def test_a_write_that_times_out_resets_its_connection(lines: list[Any]) -> None:
    async with serving(flood, write_timeout=0.2) as here, await here.connect() as stream:
        await stream.send_all(OLD)
        await until(lambda: here.server.connections == 1)
        await closed(here)
        assert (await raw(stream))[1]
    assert requests(lines) == [(200, True)]


async def test_an_app_that_breaks_in_its_answer_resets_its_connection(lines: list[Any]) -> None:
    async with serving(breaks) as here, await here.connect() as stream:
        await stream.send_all(OLD)
        assert (await raw(stream))[1]
        assert here.faults() == 0
    assert requests(lines) == [(200, True)]


async def test_a_client_that_leaves_within_its_answer_is_in_the_log(lines: list[Any]) -> None:
    async with serving(endless) as here:
        stream = await here.connect()
        await stream.send_all(GET)
        await stream.receive_some()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()
        await closed(here)
    assert requests(lines) == [(200, True)]


async def test_an_answer_that_is_out_ends_without_a_reset(lines: list[Any]) -> None:
    """A drain that comes while the client has not closed yet takes nothing of it back."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"whole"})

    async with serving(app) as here, await here.connect() as stream:
        await stream.send_all(OLD)
        await until(lambda: bool(requests(lines)))
        await here.server.drain(0.1)
        received, was_reset = await raw(stream)
        assert received.endswith(b"\r\n\r\nwhole")
        assert not was_reset
    assert requests(lines) == [(200, False)]


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"GET / HTTP/1.1\r\nHost: a\r\nx : y\r\n\r\n", 400), (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501)],
)
async def test_what_cannot_be_read_is_counted_and_in_the_log(sent: bytes, status: int, lines: list[Any]) -> None:
    async with front() as here:
        answered, headers, _ = await here.ask(sent)
        assert answered == status
        counted = here.world.metrics.counter("weir_requests_total", "", ("route", "status"))
        assert counted.values == {("-", str(status)): 1}
    (line,) = (line for line in lines if line["event"] == "request")
    assert (line["status"], line["client"], line["method"], line["path"]) == (status, "127.0.0.1", "", "")
    assert line["request_id"] == headers[b"x-request-id"].decode()


async def test_a_cut_answer_is_counted_once(lines: list[Any]) -> None:
    async def answer(request: Request) -> Response:
        assert request.wire is not None
        await request.wire.start(Response(200))
        raise RuntimeError("a bug")

    async with front(answer=answer) as here, await here.connect() as stream:
        here.world.target.streams = True
        await stream.send_all(GET.replace(b"/ ", b"/open "))
        assert (await raw(stream))[1]
        counted = here.world.metrics.counter("weir_requests_total", "", ("route", "status"))
        assert counted.values == {("/open", "200"): 1}
    assert requests(lines) == [(200, True)]
