"""What llhttp leaves to whoever uses it, each on the real server."""

import re
import tracemalloc

import pytest
import trio

from gateway.asgi_types import Receive, Scope, Send
from gateway.http1.parser import HeadLimits, RequestParser
from gateway.request import Response
from tests.gateway.serving import GET, WEBSOCKET, is_closed, read_answer, respond, serving, until
from tests.gateway.test_asgi import OPEN, front, post

H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
MB = 1024 * 1024


async def told(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what it was asked: method, path and body."""
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await respond(send, b"[%b %b %b]" % (scope["method"].encode(), scope["raw_path"], body))


async def all_of(stream: trio.SocketStream) -> bytes:
    received = b""
    with trio.fail_after(5):
        try:
            while part := await stream.receive_some():
                received += part
        except trio.BrokenResourceError:
            pass
    return received


async def pour(stream: trio.SocketStream, part: bytes, times: int) -> int:
    """Send *part* so often, or until they take no more; how many bytes were taken."""
    sent = 0
    try:
        for _ in range(times):
            await stream.send_all(part)
            sent += len(part)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    return sent


async def test_a_header_of_25_mib_is_cut_at_the_limit() -> None:
    async with front() as here, await here.connect() as stream:
        tracemalloc.start()
        try:
            await stream.send_all(b"GET /open HTTP/1.1\r\nHost: weir\r\nX: ")
            answers: list[bytes] = []
            async with trio.open_nursery() as nursery:

                async def read() -> None:
                    answers.append(await read_answer(stream))

                nursery.start_soon(read)
                await pour(stream, b"x" * 65536, 400)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert answers[0].startswith(b"HTTP/1.1 431")
        assert peak < 2 * MB
        assert here.world.target.seen == []


HEAD = b"GET /open HTTP/1.1\r\nHost: weir\r\n"
TOO_LARGE = {
    "a value": HEAD + b"X: " + b"x" * 32_768,
    "a name": HEAD + b"x" * 32_768 + b": a",
    "many small fields": HEAD + b"X: a\r\n" * 127 + b"X: a",
    "some large fields": HEAD + (b"X: " + b"x" * 8_000 + b"\r\n") * 5 + b"X: a",
    "a target": b"GET /" + b"x" * 33_000 + b" HTTP/1.1\r\nHost: weir",
}


@pytest.mark.parametrize("sent", TOO_LARGE.values(), ids=TOO_LARGE.keys())
async def test_a_head_above_the_limits_is_refused(sent: bytes) -> None:
    async with front() as here, await here.connect() as stream:
        await stream.send_all(sent + b"\r\n\r\n")
        assert (await read_answer(stream)).startswith(b"HTTP/1.1 431")
        assert await is_closed(stream)
        assert here.world.target.seen == []


async def test_a_head_at_the_limits_is_read() -> None:
    async with front() as here:
        assert (await here.ask(HEAD + b"X: a\r\n" * 127 + b"\r\n"))[0] == 200
        assert (await here.ask(HEAD + b"X: " + b"x" * 32_700 + b"\r\n\r\n"))[0] == 200
        assert len(here.seen.headers) == 2


@pytest.mark.parametrize(
    "start", [b"0\r\nX: ", b"0\r\nX", b"1;"], ids=["a trailer", "a trailer's name", "an extension"]
)
async def test_what_never_ends_in_a_body_is_cut_at_the_limit(start: bytes) -> None:
    async with front() as here, await here.connect() as stream:
        tracemalloc.start()
        try:
            await stream.send_all(post(start, b"Transfer-Encoding: chunked"))
            answers: list[bytes] = []
            async with trio.open_nursery() as nursery:

                async def read() -> None:
                    answers.append(await read_answer(stream))

                nursery.start_soon(read)
                await pour(stream, b"x" * 65536, 400)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert answers[0].startswith(b"HTTP/1.1 400")
        assert peak < 2 * MB
        assert here.world.target.seen == []


def test_a_body_in_the_smallest_chunks_is_no_abuse() -> None:
    parser = RequestParser(HeadLimits(size=1024))
    parser.feed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(500):
        parser.feed(b"1;a=b\r\nx\r\n" * 1000)
    assert parser.error is None
    parser.feed(b"0\r\n\r\n")
    message = parser.messages[0]
    assert message.complete
    assert len(b"".join(message.parts)) == 500_000


async def test_trailers_are_no_headers() -> None:
    async with front() as here, await here.connect() as stream:
        body = b"1\r\na\r\n0\r\nX-Weir-Subject: root\r\nHost: other\r\nX: y\r\n\r\n"
        await stream.send_all(post(body, b"Transfer-Encoding: chunked", b"Trailer: X"))
        assert (await read_answer(stream)).startswith(b"HTTP/1.1 200")
        assert {name for name, _ in here.seen.headers} == {b"host", b"transfer-encoding", b"trailer"}


# Offers to upgrade.


@pytest.mark.parametrize("protocol", [b"h2c", b"TLS/1.0", b"websocket, h2c"])
async def test_an_offer_with_a_body_and_requests_behind_it_is_answered_in_http(protocol: bytes) -> None:
    offer = H2C.replace(b"h2c", protocol)
    sent = (
        b"POST /1 HTTP/1.1\r\nHost: weir\r\n" + offer + b"Content-Length: 3\r\n\r\nabc"
        b"GET /2 HTTP/1.1\r\nHost: weir\r\n" + offer + b"\r\n"
        b"POST /3 HTTP/1.1\r\nHost: weir\r\n" + offer + b"Transfer-Encoding: chunked\r\n\r\n"
        b"3\r\ndef\r\n0\r\nT: t\r\n\r\n"
        b"GET /4 HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n"
    )  # fmt: skip
    for size in (len(sent), 1, 7):
        async with serving(told) as here, await here.connect() as stream:
            for begin in range(0, len(sent), size):
                await stream.send_all(sent[begin : begin + size])
            answers = await all_of(stream)
            assert here.faults() == 0
        assert answers.count(b"HTTP/1.1 200") == 4
        bodies = [part.partition(b"]")[0] for part in answers.split(b"[")[1:]]
        assert bodies == [b"POST /1 abc", b"GET /2 ", b"POST /3 def", b"GET /4 "]


async def test_more_offers_in_one_read_than_python_has_stack() -> None:
    offer = b"GET / HTTP/1.1\r\nHost:a\r\nConnection:upgrade\r\nUpgrade:x\r\n\r\n"
    async with serving(told) as here, await here.connect() as stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                stream.send_all, offer * 1100 + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            )
            assert (await all_of(stream)).count(b"HTTP/1.1 200") == 1101
        assert here.faults() == 0


async def test_a_large_upload_behind_an_offer_arrives_whole() -> None:
    body = bytes(range(256)) * 4000
    sent = b"POST / HTTP/1.1\r\nHost: weir\r\n" + H2C + b"Content-Length: %d\r\n\r\n" % len(body) + body
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            seen.append(message["body"])
            if not message["more_body"]:
                break
        await respond(send)

    async with serving(app, max_body=len(body)) as here:
        assert (await here.ask(sent)).startswith(b"HTTP/1.1 200")
    assert b"".join(seen) == body


async def test_a_refused_websocket_handshake_ends_the_connection() -> None:
    """What follows it may be frames already."""
    async with front() as here, await here.connect() as stream:
        await stream.send_all(WEBSOCKET.replace(b"GET /", b"GET /orders") + OPEN)
        answer = await read_answer(stream)
        assert answer.startswith(b"HTTP/1.1 401")
        assert b"connection: close" in answer
        assert await is_closed(stream)
        assert here.world.target.seen == []


@pytest.mark.parametrize(
    "handshake",
    [WEBSOCKET.replace(b"GET", b"POST"), WEBSOCKET.replace(b"HTTP/1.1", b"HTTP/1.0")],
    ids=["POST", "HTTP/1.0"],
)
async def test_what_cannot_be_a_websocket_is_answered_in_http(handshake: bytes) -> None:
    async with serving(told) as here:
        assert (await here.ask(handshake)).startswith(b"HTTP/1.1 200")


# Several requests in one read.


async def test_requests_in_one_read_keep_their_own_method_and_connection() -> None:
    sent = (
        b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"
        b"HEAD /2 HTTP/1.1\r\nHost: a\r\n\r\n"
        b"GET /3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        b"DELETE /4 HTTP/1.1\r\nHost: a\r\n\r\n"
        b"PUT /5 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\ny\r\n0\r\n\r\n"
        b"GET /6 HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    async with serving(told) as here, await here.connect() as stream:
        await stream.send_all(sent)
        answers = await all_of(stream)
    parts = answers.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [part.partition(b"\r\n\r\n")[2] for part in parts] == [
        b"[POST /1 x]",
        b"",
        b"[GET /3 ]",
        b"[DELETE /4 ]",
        b"[PUT /5 y]",
    ]
    connections = [[line for line in part.split(b"\r\n") if line.startswith(b"connection")] for part in parts]
    assert connections == [[], [], [b"connection: keep-alive"], [], [b"connection: close"]]


async def test_a_broken_request_costs_those_before_it_nothing() -> None:
    async with serving(told) as here, await here.connect() as stream:
        await stream.send_all(GET + GET + b"junk\r\n\r\n" + GET)
        answers = await all_of(stream)
    assert re.findall(rb"HTTP/1.1 (\d+) ", answers) == [b"200", b"200", b"400"]


async def test_a_request_in_single_bytes_is_read() -> None:
    async with serving(told) as here, await here.connect() as stream:
        for byte in b"\r\n" + post(b"3;x\r\nabc\r\n0\r\nT: t\r\n\r\n", b"Transfer-Encoding: chunked"):
            await stream.send_all(bytes([byte]))
        assert (await read_answer(stream)).endswith(b"[POST /open abc]")


@pytest.mark.parametrize("line", [b"Connection: close\r\n", b"Connection: Keep-Alive, CLOSE\r\n"])
async def test_what_follows_a_close_is_nobodys(line: bytes) -> None:
    async with front() as here, await here.connect() as stream:
        await stream.send_all(OPEN[:-2] + line + b"\r\n" + OPEN.replace(b"/open", b"/open/2") + b"\0junk")
        assert (await all_of(stream)).count(b"HTTP/1.1 ") == 1
        assert [seen.path for seen in here.world.target.seen] == ["/open"]


# While an answer is made.


async def test_what_is_pipelined_behind_an_answer_stays_with_the_client() -> None:
    """Whoever waits for the client to leave reads on, and keeps little."""
    go = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await go.wait()
            nursery.cancel_scope.cancel()
        await respond(send)

    async with serving(app) as here, await here.connect() as stream:
        big = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n"
        await stream.send_all(GET + big)
        await until(lambda: here.server.connections == 1)
        (connection,) = here.server._live
        with trio.move_on_after(0.3):
            await pour(stream, b"x" * 65536, 400)
        held = sum(len(part) for message in connection.parser.messages for part in message.parts)  # type: ignore[union-attr]
        assert held <= 192 * 1024
        go.set()


async def test_a_whole_answer_may_hold_nothing() -> None:
    async with front(answer=lambda request: Response(200)) as here:
        status, headers, body = await here.ask(OPEN)
        assert (status, headers[b"content-length"], body) == (200, b"0", b"")
