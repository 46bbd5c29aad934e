"""Every wait on a client has an end, and every number a bound: on the real server, over real sockets."""

import socket
from collections.abc import Awaitable, Callable

import msgspec
import pytest
import trio

from gateway.asgi_types import Receive, Scope, Send
from gateway.request import Request, Response
from tests.gateway.serving import GET, Serving, hello, is_closed, read_answer, respond, serving, until
from tests.gateway.test_asgi import OPEN, front, post

EXPECTS = b"Expect: 100-continue"


async def trickle(stream: trio.SocketStream, data: bytes, every: float) -> None:
    """A byte at a time, until they close."""
    try:
        for byte in data:
            await stream.send_all(bytes([byte]))
            await trio.sleep(every)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def raw(stream: trio.SocketStream) -> tuple[bytes, bool]:
    """All that comes, and whether it ended in an error."""
    received = b""
    with trio.fail_after(10):
        try:
            while part := await stream.receive_some():
                received += part
        except trio.BrokenResourceError:
            return received, True
    return received, False


# Heads.


async def test_a_head_that_trickles_is_cut_by_its_deadline() -> None:
    async with serving(hello, header_timeout=0.3) as here, await here.connect() as stream:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle, stream, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200, 0.02)
            assert await is_closed(stream)
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began >= 0.3


@pytest.mark.parametrize("behind", [b"G", b"GET / HTTP/1.1\r\nHost: a\r\nX: "])
async def test_a_head_begun_behind_another_request_has_the_same_deadline(behind: bytes) -> None:
    async with serving(hello, header_timeout=0.2, keep_alive_timeout=60.0) as here, await here.connect() as stream:
        await stream.send_all(GET + behind)
        await read_answer(stream)
        assert await is_closed(stream)


async def test_empty_lines_do_not_keep_a_connection() -> None:
    async with (
        serving(hello, header_timeout=0.2, keep_alive_timeout=0.4) as here,
        await here.connect() as stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(trickle, stream, b"\r\n" * 500, 0.02)
        assert await is_closed(stream)
        nursery.cancel_scope.cancel()


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with serving(hello, header_timeout=0.2) as here, await here.connect() as stream:
        assert await is_closed(stream)


# Bodies.


async def test_a_body_that_stands_still_is_a_timeout_and_the_end() -> None:
    async with front(body_timeout=0.15) as here, await here.connect() as stream:
        await stream.send_all(post(b"x" * 1000, b"Content-Length: 2000"))
        answer = await read_answer(stream)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in answer
        assert await is_closed(stream)


async def test_a_body_that_trickles_below_its_rate_is_a_timeout() -> None:
    """Though it never stands still for as long as it may."""
    async with front(body_timeout=0.3, body_rate=1000.0) as here, await here.connect() as stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle, stream, post(b"x" * 1000), 0.01)
            answer = await read_answer(stream)
            nursery.cancel_scope.cancel()
        assert answer.startswith(b"HTTP/1.1 408")
        assert here.world.target.seen == []


async def test_a_body_that_came_fast_and_stands_still_is_a_timeout_soon() -> None:
    async with front(body_timeout=0.2, body_rate=1000.0) as here, await here.connect() as stream:
        await stream.send_all(post(b"x" * 100_000, b"Content-Length: 100001"))
        assert (await read_answer(stream)).startswith(b"HTTP/1.1 408")


async def test_a_slow_body_above_its_rate_is_taken() -> None:
    async with front(body_timeout=0.1, body_rate=100.0) as here, await here.connect() as stream:
        await stream.send_all(post(b"", b"Content-Length: 200"))
        for _ in range(20):
            await trio.sleep(0.02)
            await stream.send_all(b"x" * 10)
        assert (await read_answer(stream)).startswith(b"HTTP/1.1 200")


# Readers.


async def test_a_client_that_reads_less_than_it_should_is_cut() -> None:
    """It takes something in every while, so no single wait ends; all of it would take hours."""

    async def big(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, bytes(20_000_000))

    async with serving(big, write_timeout=0.3) as here:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        with trio.socket.from_stdlib_socket(sock) as client:
            await client.connect(("127.0.0.1", here.port))
            await client.send(GET)
            with trio.fail_after(10):
                await until(lambda: here.server.connections == 1)
                try:
                    while here.server.connections:
                        await client.recv(1024)
                        await trio.sleep(0.02)
                except OSError:
                    pass
                await until(lambda: here.server.connections == 0)


async def test_a_client_that_reads_each_64_kib_in_time_gets_everything() -> None:
    """The kernel's buffer, which may hold much more, does not count as what it has not taken."""
    size = 3_000_000

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, bytes(size))

    async with serving(large, write_timeout=0.4) as here:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        sock.setblocking(False)
        with trio.socket.from_stdlib_socket(sock) as client:
            await client.connect(("127.0.0.1", here.port))
            await client.send(GET)
            received = 0
            while received < size:
                await trio.sleep(0.005)
                part = await client.recv(16 * 1024)
                assert part, "it was cut"
                received += len(part)


# In flight.


async def test_a_request_above_the_cap_in_flight_is_told_when_to_come_again() -> None:
    go = trio.Event()

    async def slow(request: Request) -> Response:
        await go.wait()
        return Response(200)

    async with front(answer=slow, max_in_flight=2) as here, trio.open_nursery() as nursery:
        statuses: list[int] = []

        async def ask() -> None:
            statuses.append((await here.ask(OPEN))[0])

        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await until(lambda: len(here.world.target.seen) == 2)
        status, headers, body = await here.ask(OPEN)
        assert status == 503
        assert int(headers[b"retry-after"]) >= 1
        assert headers[b"content-type"] == b"application/problem+json"
        assert msgspec.json.decode(body)["status"] == 503
        go.set()
        await until(lambda: len(statuses) == 2)
        assert statuses == [200, 200]
        assert (await here.ask(OPEN))[0] == 200


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
async def test_a_slow_body_and_an_answer_that_has_begun_take_nobodys_turn(streams: bool) -> None:
    begun = trio.Event()

    async def answer(request: Request) -> Response:
        wire = request.wire
        if request.method == "GET" or not streams or wire is None:
            return Response(200)
        await wire.read()
        await wire.start(Response(200))
        begun.set()
        await trio.sleep_forever()
        return Response(200, sent=True)

    upload = b"POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na"
    async with front(answer=answer, max_in_flight=1) as here:
        here.world.target.streams = streams
        async with await here.connect() as first, await here.connect() as second:
            await first.send_all(upload)
            await second.send_all(upload)
            await until(lambda: len(here.world.router.asked) == 2)
            if streams:
                await first.send_all(b"b")
                await begun.wait()
            assert here.world.pipeline.at_work == 0
            here.world.target.streams = False
            assert (await here.ask(OPEN))[0] == 200


async def test_one_connection_has_so_many_requests_and_is_told_of_the_last() -> None:
    async with serving(hello, max_requests=3) as here, await here.connect() as stream:
        await stream.send_all(GET * 5)
        answers, _ = await raw(stream)
        assert answers.count(b"HTTP/1.1 200") == 3
        assert answers.count(b"connection: close") == 1


# 100-continue.


async def test_continue_is_said_when_the_body_is_wanted() -> None:
    async with front() as here, await here.connect() as stream:
        await stream.send_all(post(b"", EXPECTS, b"Content-Length: 3"))
        with trio.fail_after(5):
            assert await stream.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send_all(b"abc")
        answer = await read_answer(stream)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" not in answer
        assert here.seen.body == b"abc"
        await stream.send_all(OPEN)
        assert (await read_answer(stream)).startswith(b"HTTP/1.1 200")


REFUSED = {
    "without a token": post(b"", EXPECTS, b"Content-Length: 3", path=b"/users"),
    "too large": post(b"", EXPECTS, b"Content-Length: 99999999"),
    "an ambiguous path": post(b"", EXPECTS, b"Content-Length: 3", path=b"/open/../x"),
}


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED.keys())
async def test_a_request_that_is_refused_is_told_at_once(sent: bytes) -> None:
    async with front() as here, await here.connect() as stream:
        await stream.send_all(sent)
        answer = await read_answer(stream)
        assert answer.startswith(b"HTTP/1.1 4")
        assert b"100 Continue" not in answer
        assert b"connection: close" in answer  # whether its body follows is its own choice
        assert await is_closed(stream)


@pytest.mark.parametrize(
    "sent",
    [
        post(b"abc", EXPECTS),
        post(b"", EXPECTS),
        post(b"abc", EXPECTS).replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=["a body that is there", "no body", "HTTP/1.0"],
)
async def test_continue_is_not_said_for_nothing(sent: bytes) -> None:
    async with front() as here, await here.connect() as stream:
        await stream.send_all(sent)
        assert (await read_answer(stream)).startswith(b"HTTP/1.1 200")


async def test_http_1_0_waits_for_no_continue() -> None:
    async with front() as here, await here.connect() as stream:
        await stream.send_all(post(b"", EXPECTS, b"Content-Length: 3").replace(b"HTTP/1.1", b"HTTP/1.0"))
        await trio.sleep(0.05)
        await stream.send_all(b"abc")
        assert (await read_answer(stream)).startswith(b"HTTP/1.1 200")


async def test_continue_is_not_said_into_an_answer() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun ", "more_body": True})
        message = await receive()
        await send({"type": "http.response.body", "body": message["body"]})

    async with serving(app) as here, await here.connect() as stream:
        await stream.send_all(post(b"", EXPECTS, b"Content-Length: 3"))
        with trio.fail_after(5):
            first = await stream.receive_some()
            while b"begun" not in first:
                first += await stream.receive_some()
        await stream.send_all(b"abc")
        rest, _ = await raw(stream)
        assert b"100 Continue" not in first + rest
        assert rest.endswith(b"3\r\nabc\r\n0\r\n\r\n")


# HTTP/1.0, HEAD and lengths.


async def streams(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for part in (b"one ", b"", b"two"):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def test_a_streamed_answer_ends_by_the_close_in_http_1_0() -> None:
    async with serving(streams) as here, await here.connect() as stream:
        await stream.send_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer, broken = await raw(stream)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert not broken
        assert body == b"one two"
        assert b"transfer-encoding" not in head
        assert b"connection: close" in head


async def test_http_1_0_keeps_the_connection_if_asked_to() -> None:
    async with serving(hello) as here, await here.connect() as stream:
        for _ in range(2):
            await stream.send_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = await read_answer(stream)
            assert answer.endswith(b"hello")
            assert b"connection: keep-alive" in answer
        await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
        assert b"connection: close" in await read_answer(stream)
        assert await is_closed(stream)


async def test_a_streamed_answer_is_chunked_in_http_1_1_and_headless_for_head() -> None:
    async with serving(streams) as here, await here.connect() as stream:
        close = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        await stream.send_all(GET.replace(b"GET", b"HEAD") + close)
        answers, _ = await raw(stream)
        first, second = answers.split(b"HTTP/1.1 200 OK\r\n")[1:]
        assert first.partition(b"\r\n\r\n")[2] == b""
        assert second.partition(b"\r\n\r\n")[2] == b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n"


# Answers that are cut.


def cuts(*headers: tuple[bytes, bytes], leaves: bool = False) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await trio.sleep(0.05)
        if not leaves:
            raise RuntimeError("a bug")

    return app


@pytest.mark.parametrize("leaves", [False, True], ids=["raises", "returns"])
@pytest.mark.parametrize(
    ("sent", "headers"),
    [(GET, ()), (GET, ((b"content-length", b"8"),)), (b"GET / HTTP/1.0\r\n\r\n", ())],
    ids=["chunked", "of a length", "HTTP/1.0"],
)
async def test_an_answer_that_is_cut_is_an_error_to_the_client(
    sent: bytes, headers: tuple[tuple[bytes, bytes], ...], leaves: bool
) -> None:
    async with serving(cuts(*headers, leaves=leaves)) as here, await here.connect() as stream:
        await stream.send_all(sent)
        answer, broken = await raw(stream)
        assert broken, "it ended like a whole answer"
        assert not answer.endswith(b"0\r\n\r\n")
        assert here.faults() == 0


# Connections.


async def test_a_refused_connection_counts_and_frees_nothing() -> None:
    async with serving(hello, max_connections=1) as here:
        async with await here.connect() as one:
            await one.send_all(GET)
            await read_answer(one)
            for _ in range(5):
                async with await here.connect() as more:
                    assert await is_closed(more)
        await until(lambda: here.server.connections == 0)
        assert _refused(here) == 5
        assert (await here.ask(GET)).endswith(b"hello")


def _refused(here: Serving) -> float:
    return here.metrics.counter("weir_connections_refused_total", "", ("listener", "reason")).values[("test", "total")]
