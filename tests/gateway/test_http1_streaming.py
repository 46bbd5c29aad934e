"""Applications of three frameworks as `asgi:` targets over real sockets, and how little a slow client has us hold."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from websockets.sync.client import connect as websocket

from actors.router.messages import Route
from gateway.address import TrustedProxies
from gateway.asgi import GatewayApp
from gateway.asgi_target import AsgiApp, AsgiTarget
from gateway.asgi_types import App, Receive, Scope, Send
from tests.gateway.frameworks import PART, PARTS, Gone, fastapi_app, quart_app, starlette_app
from tests.gateway.serving import Serving, read_answer, serving, until
from tests.gateway.support import World
from tests.gateway.test_asgi import OPEN, post

MAKERS = {"starlette": starlette_app, "fastapi": fastapi_app, "quart-trio": quart_app}
MB = 1024 * 1024
# What may lie between a client and an application: the kernel's buffers of both sides, and one read of ours.
KERNEL = 8 * MB

each_framework = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


class OneTarget:
    def __init__(self, app: App) -> None:
        self._target = AsgiTarget(AsgiApp("asgi:test:app", app))

    def of(self, route: Route) -> AsgiTarget:
        return self._target


@asynccontextmanager
async def target(app: App, max_body: int = 256 * MB, **limits: Any) -> AsyncIterator[Serving]:
    """*app* as the target of /open."""
    world = World(targets=OneTarget(app))
    async with serving(GatewayApp(world.pipeline, TrustedProxies(), max_body=max_body), **limits) as here:
        yield here
        assert here.faults() == 0


def client(here: Serving) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{here.port}/open", timeout=20)


async def curl(here: Serving, path: str, *arguments: str, data: bytes = b"") -> bytes:
    command = ["curl", "-sS", "--max-time", "20", *arguments, f"http://127.0.0.1:{here.port}/open{path}"]
    ended = await trio.run_process(command, stdin=data, capture_stdout=True, capture_stderr=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return bytes(ended.stdout)


@each_framework
async def test_uploads(make: Callable[[Gone], App]) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b"x" * 40_000

    async with target(make(Gone())) as here, client(here) as http:
        assert (await http.post("/upload", content=b"x" * 8_000_000)).json() == {"size": 8_000_000}
        assert (await http.post("/upload", content=chunks())).json() == {"size": 8_000_000}
        assert (await http.post("/upload", content=b"")).json() == {"size": 0}
        form = await http.post("/form", files={"file": b"y" * 2_000_000}, data={"name": "Alice"})
        assert form.json() == {"size": 2_000_000, "name": "Alice"}


@each_framework
async def test_uploads_of_curl(make: Callable[[Gone], App]) -> None:
    async with target(make(Gone())) as here:
        data = b"x" * 3_000_000
        wanted = b'{"size":3000000}'
        for arguments in (
            ["-H", "Expect: 100-continue"],
            ["-H", "Transfer-Encoding: chunked"],
            ["--http2", "-H", "Expect:"],
            ["--http1.0"],
        ):
            answer = await curl(here, "/upload", "--data-binary", "@-", *arguments, data=data)
            assert answer.replace(b" ", b"").strip() == wanted, arguments


@each_framework
async def test_streams_and_events(make: Callable[[Gone], App]) -> None:
    async with target(make(Gone())) as here, client(here) as http:
        answer = await http.get("/stream")
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.content == PART * PARTS
        assert await curl(here, "/stream") == PART * PARTS
        assert await curl(here, "/stream", "--http1.0") == PART * PARTS
        times: list[float] = []
        async with http.stream("GET", "/sse") as events:
            assert events.headers["content-type"].startswith("text/event-stream")
            received = b""
            async for part in events.aiter_raw():
                times.append(trio.current_time())
                received += part
        assert received == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
        assert len(times) == 3  # each as it came
        assert times[2] - times[0] > 0.05


@each_framework
async def test_a_websocket_echoes(make: Callable[[Gone], App]) -> None:
    def talk(port: int) -> list[str | bytes]:
        with websocket(f"ws://127.0.0.1:{port}/open/ws", open_timeout=10, close_timeout=5) as socket:
            said: list[str | bytes] = ["hello", b"\x00\xff" * 40_000, "", "x" * 100_000]
            heard = []
            for message in said:
                socket.send(message)
                heard.append(socket.recv(timeout=10))
            assert heard == said
            return heard

    async with target(make(Gone())) as here:
        assert len(await trio.to_thread.run_sync(talk, here.port)) == 4
        await until(lambda: here.server.connections == 0)


@each_framework
async def test_an_application_sees_its_client_leave(make: Callable[[Gone], App]) -> None:
    gone = Gone()
    async with target(make(gone)) as here:
        for _ in range(2):
            async with await here.connect() as stream:
                await stream.send_all(OPEN.replace(b"/open", b"/open/endless"))
                seen = b""
                with trio.fail_after(5):
                    while seen.count(b"tick") < 2:
                        seen += await stream.receive_some()
        await until(lambda: here.server.connections == 0)
        await until(lambda: gone.count == 2)


# What is held.


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_an_upload_that_is_not_read_stays_with_the_client(is_chunked: bool) -> None:
    size = 24 * MB
    sent = 0
    go = trio.Event()
    taken = 0

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal taken
        await go.wait()
        while True:
            message = await receive()
            assert len(message["body"]) <= 64 * 1024, "more than one read was kept"
            taken += len(message["body"])
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % size
    async with target(slow) as here, await here.connect() as stream, trio.open_nursery() as nursery:
        await stream.send_all(post(b"", framing))

        async def upload() -> None:
            nonlocal sent
            for _ in range(size // 65536):
                part = b"x" * 65536
                if is_chunked:
                    part = b"10000\r\n" + part + b"\r\n"
                await stream.send_all(part)
                sent += 65536
            if is_chunked:
                await stream.send_all(b"0\r\n\r\n")

        nursery.start_soon(upload)
        await until(lambda: sent > 0)
        await trio.sleep(0.2)
        assert sent <= KERNEL
        go.set()
        assert (await read_answer(stream)).endswith(b"ok")
        assert taken == size


async def test_an_answer_that_is_not_read_stays_with_the_application() -> None:
    made = 0

    async def fast(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal made
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            made += 65536
        await send({"type": "http.response.body"})

    async with target(fast) as here, await here.connect() as stream:
        await stream.send_all(OPEN)
        await until(lambda: made > 0)
        await trio.sleep(0.2)
        assert made <= KERNEL
        received = 0
        while received < 1000 * 65536:
            received += len(await stream.receive_some(MB))
        assert made == 1000 * 65536


async def test_a_body_above_the_limit_ends_the_upload_of_a_streaming_application() -> None:
    async with target(starlette_app(Gone()), max_body=1000) as here:
        chunks = b"300\r\n" + b"x" * 0x300 + b"\r\n"
        answer = await here.ask(post(chunks * 3 + b"0\r\n\r\n", b"Transfer-Encoding: chunked", path=b"/open/upload"))
        assert answer.startswith(b"HTTP/1.1 413")
        answer = await here.ask(post(b"", b"Content-Length: 1001", path=b"/open/upload"))
        assert answer.startswith(b"HTTP/1.1 413")
