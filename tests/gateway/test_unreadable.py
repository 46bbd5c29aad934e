"""What is no request: refused as a problem like any other error, and at nobody else's cost."""

import json

import pytest
import structlog

from gateway.asgi_types import Receive, Scope, Send
from tests.gateway.serving import GET, hello, is_closed, read_answer, respond, serving, until

HEAD_OF_POST = b"POST / HTTP/1.1\r\nHost: weir\r\n"
UNREADABLE = {
    "no request at all": (b"hello\r\n\r\n", 400),
    "a TLS greeting": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 50 + b"\r\n\r\n", 400),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "NUL in a header": (b"GET / HTTP/1.1\r\nHost: weir\r\nX: a\0b\r\n\r\n", 400),
    "two lengths": (HEAD_OF_POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "a broken chunk": (HEAD_OF_POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "an unknown coding": (HEAD_OF_POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "an endless head": (b"GET / HTTP/1.1\r\nHost: weir\r\nX: " + b"a" * 200_000, 431),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP of another day": (b"GET / HTTP/9.9\r\nHost: weir\r\n\r\n", 505),
}


async def attentive(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers when it has read the whole request."""
    while (message := await receive())["type"] == "http.request":
        if not message["more_body"]:
            await respond(send)
            return


@pytest.mark.parametrize(("sent", "status"), UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_what_is_no_request_is_refused_as_a_problem(sent: bytes, status: int) -> None:
    async with serving(attentive) as here, await here.connect() as stream:
        await stream.send_all(sent)
        head, _, body = (await read_answer(stream)).partition(b"\r\n\r\n")
        assert await is_closed(stream)
        assert here.faults() == 0
    lines = head.split(b"\r\n")
    assert lines[0].startswith(b"HTTP/1.1 %d" % status)
    problem = json.loads(body)
    assert problem["status"] == status
    assert {
        b"content-type: application/problem+json",
        b"vary: Origin",
        b"connection: close",
        b"x-request-id: " + problem["request_id"].encode(),
    } <= set(lines)


@pytest.mark.parametrize(
    "follows", [b"junk", b"\r\n", GET, b"x" * 200_000], ids=["junk", "a line break", "a request", "much"]
)
async def test_what_follows_the_last_request_does_not_cost_its_answer(follows: bytes) -> None:
    async with serving(hello) as here, await here.connect() as stream:
        await stream.send_all(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + follows)
        answer = await read_answer(stream)
        assert answer.startswith(b"HTTP/1.1 200")
        assert await is_closed(stream)
        assert here.faults() == 0


async def test_a_client_that_closes_at_once_is_logged_once_with_its_answer() -> None:
    with structlog.testing.capture_logs() as lines:
        async with serving(hello) as here:
            for _ in range(20):
                async with await here.connect() as stream:
                    await stream.send_all(GET)
                    await stream.receive_some()
            await until(lambda: here.server.connections == 0)
    assert [line["status"] for line in lines if line["log_level"] == "info"] == [200] * 20
