"""A real server on a loopback socket, a client that speaks bytes, and apps that misbehave."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from actors.metrics import Metrics
from gateway.asgi_types import App, Receive, Scope, Send
from gateway.http1.connection import ConnectionLimits
from gateway.request import Headers
from gateway.server import Server, ServerLimits, TlsRef
from gateway.sockets import open_sockets

GET = b"GET / HTTP/1.1\r\nHost: weir\r\n\r\n"
WEBSOCKET = (
    b"GET / HTTP/1.1\r\nHost: weir\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Serving:
    def __init__(self, server: Server, port: int, metrics: Metrics) -> None:
        self.server = server
        self.port = port
        self.metrics = metrics

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def ask(self, sent: bytes) -> bytes:
        """Send bytes on a new connection and read one answer: to its length, or to the end."""
        async with await self.connect() as stream:
            await stream.send_all(sent)
            return await read_answer(stream)

    def faults(self) -> float:
        return sum(self.metrics.counter("weir_connection_faults_total", "", ("listener",)).values.values())


@asynccontextmanager
async def serving(
    app: App, *, lifespan: bool = False, tls: TlsRef | None = None, extra: Headers | None = None, **limits: Any
) -> AsyncIterator[Serving]:
    """Limits: of the server (`max_connections…`) and of a connection. Leaving cuts what is left, within a second."""
    sockets = open_sockets(["127.0.0.1:0"])
    of_server = {name: limits.pop(name) for name in tuple(limits) if name.startswith("max_connections")}
    metrics = Metrics()
    server = Server(
        "test",
        app,
        sockets,
        metrics,
        ServerLimits(connection=ConnectionLimits(**limits), **of_server),
        lifespan=lifespan,
        tls=tls,
        extra=extra,
    )
    port = sockets[0].getsockname()[1]
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            yield Serving(server, port, metrics)
            nursery.cancel_scope.cancel()
            leaving = trio.current_time()
        assert trio.current_time() - leaving < 2, "something held up the end"
    finally:
        for sock in sockets:
            sock.close()


async def read_answer(stream: trio.SocketStream) -> bytes:
    """One response: the head, and as much body as its content-length says (none: up to the end)."""
    answer = b""
    with trio.fail_after(5):
        while True:
            head, separator, body = answer.partition(b"\r\n\r\n")
            if separator:
                lines = [line.split(b": ") for line in head.lower().split(b"\r\n")[1:]]
                lengths = [int(line[1]) for line in lines if line[0] == b"content-length"]
                if lengths and len(body) >= lengths[0]:
                    return answer
            more = await stream.receive_some()
            if not more:
                return answer
            answer += more


async def until(true: Callable[[], bool]) -> None:
    """Wait until it is so; five seconds at most."""
    for _ in range(500):
        if true():
            return
        await trio.sleep(0.01)
    raise AssertionError("it did not become true in time")


async def is_closed(stream: trio.SocketStream, within: float = 2.0) -> bool:
    """Whether the server closes the connection in time. Takes what is still to be read."""
    with trio.move_on_after(within):
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
        return True
    return False


async def respond(send: Send, body: bytes = b"hello", status: int = 200) -> None:
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await respond(send)
