"""The public listener's app on a real server: bytes to request, response to bytes."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest
import trio

from gateway.address import TrustedProxies
from gateway.asgi import GatewayApp
from gateway.request import Request, Response
from tests.gateway.serving import GET, WEBSOCKET, Serving, is_closed, read_answer, serving, until
from tests.gateway.support import APP_ORIGIN, World

OPEN = GET.replace(b"GET / ", b"GET /open ")


class Front:
    def __init__(self, here: Serving, world: World) -> None:
        self.here = here
        self.world = world
        self.connect = here.connect

    async def ask(self, sent: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        answer = await self.here.ask(sent)
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        pairs = [line.split(b": ", 1) for line in lines[1:]]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), f"a header is there twice: {lines}"
        return int(lines[0].split()[1]), headers, body

    @property
    def seen(self) -> Request:
        return self.world.target.seen[-1]


@asynccontextmanager
async def front(
    proxies: tuple[str, ...] = (), answer: Callable[[Request], Any] | None = None, **options: Any
) -> AsyncIterator[Front]:
    world = World()
    if answer is not None:
        world.target.answer = answer
    networks = [ip_network(proxy) for proxy in proxies]
    of_connection = {name: options.pop(name) for name in ("body_timeout", "body_rate") if name in options}
    app = GatewayApp(world.pipeline, TrustedProxies(networks), new_id=lambda: "req-1", **options)
    async with serving(app, **of_connection) as here:
        yield Front(here, world)
        assert here.faults() == 0


def post(body: bytes, *headers: bytes, path: bytes = b"/open") -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"Host: weir", *headers]
    if not any(line.lower().startswith((b"content-length", b"transfer-encoding")) for line in headers):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def test_a_request_arrives_whole() -> None:
    async with front() as here:
        status, headers, body = await here.ask(post(b'{"a":1}', b"X-Thing: 1", path=b"/%6fpen/x%20y?a=%41&b"))
        assert (status, body) == (200, b"{}")
        assert headers[b"x-request-id"] == b"req-1"
        assert headers[b"vary"] == b"Origin"
        seen = here.seen
        assert (seen.method, seen.path, seen.query, seen.body) == ("POST", "/open/x%20y", b"a=%41&b", b'{"a":1}')
        assert (seen.client, seen.peer, seen.scheme, seen.http_version) == ("127.0.0.1", "127.0.0.1", "http", "1.1")
        assert seen.header(b"x-thing") == b"1"


async def test_a_chunked_body_arrives_whole() -> None:
    async with front() as here:
        await here.ask(post(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"))
        assert here.seen.body == b"abcde"


async def test_head_is_answered_like_get_without_the_body() -> None:
    async with front(answer=lambda request: Response(200, [], b"12345")) as here, await here.connect() as stream:
        await stream.send_all(OPEN.replace(b"GET", b"HEAD") + GET.replace(b"/ ", b"/x/../y "))
        answers = b""
        with trio.fail_after(2):
            while b"400" not in answers:
                answers += await stream.receive_some()
        head, _, rest = answers.partition(b"\r\n\r\n")
        assert b"content-length: 5" in head.lower()
        assert rest.startswith(b"HTTP/1.1 400")


async def test_an_answer_without_content_has_no_length() -> None:
    async with front(answer=lambda request: Response(204)) as here, await here.connect() as stream:
        await stream.send_all(OPEN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        answer = await read_answer(stream)
        assert answer.startswith(b"HTTP/1.1 204")
        assert b"content-length" not in answer.lower()


async def test_a_large_answer_arrives_whole() -> None:
    body = bytes(range(256)) * 2000
    async with front(answer=lambda request: Response(200, [], body)) as here:
        assert (await here.ask(OPEN))[2] == body


@pytest.mark.parametrize("path", [b"/a/../b", b"/a%2fb", b"//x", b"/a;b", b"/a%00", b"http://other/x", b"*"])
async def test_an_ambiguous_path_is_a_bad_request_with_everything_an_answer_has(path: bytes) -> None:
    async with front() as here:
        sent = GET.replace(b"GET / ", b"GET " + path + b" ").replace(
            b"\r\n\r\n", b"\r\nOrigin: " + APP_ORIGIN + b"\r\n\r\n"
        )
        status, headers, body = await here.ask(sent)
        assert status == 400
        assert headers[b"content-type"] == b"application/problem+json"
        assert headers[b"access-control-allow-origin"] == APP_ORIGIN
        assert msgspec.json.decode(body)["request_id"] == "req-1"
        assert here.world.target.seen == []


async def test_options_of_the_server() -> None:
    async with front() as here:
        sent = GET.replace(b"GET / ", b"OPTIONS * ").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        assert (await here.ask(sent))[0] == 204


# Bodies that are not as they should be.


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent() -> None:
    async with front(max_body=10) as here:
        status, headers, _ = await here.ask(post(b"", b"Content-Length: 11"))
        assert status == 413
        assert headers[b"connection"] == b"close"


async def test_a_body_of_the_largest_size_is_taken() -> None:
    async with front(max_body=10) as here:
        assert (await here.ask(post(b"x" * 10)))[0] == 200


async def test_a_body_that_turns_out_too_large_is_refused_and_the_answer_arrives() -> None:
    async with front(max_body=1000) as here, await here.connect() as stream:
        await stream.send_all(post(b"", b"Transfer-Encoding: chunked"))
        answer = b""

        async def read() -> None:
            nonlocal answer
            answer = await read_answer(stream)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
            for _ in range(50):  # far more than the queue between reader and app holds
                await stream.send_all(chunk)
            await stream.send_all(b"0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413")
        assert await is_closed(stream)


async def test_a_body_that_never_comes_is_a_timeout() -> None:
    async with front(body_timeout=0.1) as here, await here.connect() as stream:
        await stream.send_all(post(b"abc", b"Content-Length: 10"))
        assert (await read_answer(stream)).startswith(b"HTTP/1.1 408")


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_request() -> None:
    async with front() as here:
        async with await here.connect() as stream:
            await stream.send_all(post(b"abc", b"Content-Length: 10"))
            await until(lambda: here.here.server.connections == 1)
        await until(lambda: here.here.server.connections == 0)
        assert here.world.target.seen == []


async def test_two_lengths_are_refused() -> None:
    async with front() as here:
        status, headers, _ = await here.ask(post(b"0\r\n\r\n", b"Transfer-Encoding: chunked", b"Content-Length: 5"))
        assert status == 400
        assert headers[b"connection"] == b"close"


# Clients that go away.


async def test_a_client_that_leaves_cancels_nothing() -> None:
    finished = trio.Event()

    async def write(request: Request) -> Response:
        await trio.sleep(0.1)
        finished.set()
        return Response(200)

    async with front(answer=write) as here:
        async with await here.connect() as stream:
            await stream.send_all(OPEN)
            await trio.sleep(0.02)
        with trio.fail_after(2):
            await finished.wait()


async def test_a_client_that_has_said_all_still_gets_its_answer() -> None:
    async def slow(request: Request) -> Response:
        await trio.sleep(0.05)
        return Response(200, [], b"late")

    async with front(answer=slow) as here, await here.connect() as stream:
        await stream.send_all(OPEN)
        await stream.send_eof()
        assert (await read_answer(stream)).endswith(b"late")


@pytest.mark.parametrize(
    ("answer", "length"),
    [
        (Response(200, [], b"four"), b"4"),
        (Response(200, [(b"content-length", b"9")]), b"9"),
        (Response(200), None),
        (Response(204), None),
    ],
    ids=["of the body it leaves out", "as the target told", "unknown", "none"],
)
async def test_the_answer_to_head_tells_the_length_that_a_get_would_have(
    answer: Response, length: bytes | None
) -> None:
    async with front(answer=lambda request: answer) as here, await here.connect() as stream:
        await stream.send_all(OPEN.replace(b"GET", b"HEAD").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        received = b""
        with trio.fail_after(5):
            while part := await stream.receive_some():
                received += part
    head, _, body = received.partition(b"\r\n\r\n")
    told = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
    assert (told.get(b"content-length"), body) == (length, b"")


@pytest.mark.parametrize(("path", "status"), [(b"/", 401), (b"/open", 403)])
async def test_a_websocket_that_nobody_takes_is_refused(path: bytes, status: int) -> None:
    async with front() as here, await here.connect() as stream:
        await stream.send_all(WEBSOCKET.replace(b"GET /", b"GET " + path))
        answer = await read_answer(stream)
        assert answer.startswith(b"HTTP/1.1 %d" % status)
        assert answer.count(b"connection: close") == 1
        assert b"content-type: application/problem+json" in answer
        assert b"x-request-id: " in answer
        assert await is_closed(stream)


# Who it is.


SPOOFED = (b"X-Forwarded-For: 192.0.2.7", b"X-Forwarded-Proto: https", b"X-Real-IP: 1.1.1.1", b"Forwarded: for=1.1.1.1")


async def test_what_a_stranger_claims_to_forward_is_taken_away() -> None:
    async with front() as here:
        await here.ask(post(b"", *SPOOFED))
        assert (here.seen.client, here.seen.scheme) == ("127.0.0.1", "http")
        assert {name for name, _ in here.seen.headers} == {b"host", b"content-length"}


async def test_what_a_trusted_proxy_forwards_is_believed() -> None:
    async with front(("127.0.0.0/8",)) as here:
        await here.ask(post(b"", *SPOOFED))
        assert (here.seen.client, here.seen.peer, here.seen.scheme) == ("192.0.2.7", "127.0.0.1", "https")


async def test_a_trace_goes_on() -> None:
    trace = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with front() as here:
        await here.ask(post(b"", b"Traceparent: " + trace))
        assert here.seen.traceparent == trace.decode()
