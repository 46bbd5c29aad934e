"""Upstreams on real sockets that do as they are told, and a client's wire in memory."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio

from actors.breaker import HealthPolicy
from actors.router.messages import Resolved, Route
from gateway.problem import ProblemError
from gateway.proxy.limits import ProxyLimits
from gateway.proxy.origin import Origin
from gateway.proxy.retries import RetryBudget
from gateway.proxy.target import UpstreamTarget
from gateway.request import ClientGone, Request, Response
from tests.gateway.support import ALICE

Behaviour = Callable[["Peer", bytes], Awaitable[None]]


class Peer:
    """One connection as an upstream's behaviour has it: *heard* is the request's head and what came with it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.kept = b""

    async def request(self) -> bytes:
        """The next head, with its blank line; b"" when the proxy has closed."""
        while b"\r\n\r\n" not in self.kept:
            try:
                data = await self.stream.receive_some()
            except trio.BrokenResourceError:
                return b""
            if not data:
                return b""
            self.kept += data
        head, _, self.kept = self.kept.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    async def body(self, size: int) -> bytes:
        while len(self.kept) < size:
            data = await self.stream.receive_some()
            assert data, "the proxy closed within a body"
            self.kept += data
        body, self.kept = self.kept[:size], self.kept[size:]
        return body

    async def until(self, end: bytes) -> bytes:
        while end not in self.kept:
            data = await self.stream.receive_some()
            assert data, "the proxy closed within a body"
            self.kept += data
        body, found, self.kept = self.kept.partition(end)
        return body + found

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)


class Upstream:
    """Behaves on the n-th request, over all its connections, as the n-th of *behaviours* says."""

    def __init__(self, behaviours: Sequence[Behaviour | bytes]) -> None:
        self.behaviours = list(behaviours)
        self.heard: list[bytes] = []
        self.connections = 0
        self.url = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        peer = Peer(stream)
        async with stream:
            while head := await peer.request():
                self.heard.append(head)
                behaviour = self.behaviours.pop(0)
                if isinstance(behaviour, bytes):
                    await peer.say(behaviour)
                    if b"connection: close" in behaviour.lower() or not behaviour.startswith(b"HTTP/1.1"):
                        return
                else:
                    try:
                        await behaviour(peer, head)
                    except Hangup:
                        return


class Hangup(Exception):
    """A behaviour closes the connection."""


async def hang(peer: Peer, head: bytes) -> None:
    await trio.sleep_forever()


async def hang_up(peer: Peer, head: bytes) -> None:
    raise Hangup


@asynccontextmanager
async def upstream(*behaviours: Behaviour | bytes) -> AsyncIterator[Upstream]:
    peer = Upstream(behaviours)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        peer.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.start_soon(trio.serve_listeners, peer.serve, [listener])
        with trio.fail_after(10):
            yield peer
        nursery.cancel_scope.cancel()


async def nobody() -> str:
    """A URL at which nobody listens."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    await listener.aclose()
    return url


def said(status: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


LIMITS = ProxyLimits(response=2.0, idle=2.0, connect=1.0, pending=0.2)


@contextmanager
def proxy(*urls: str, limits: ProxyLimits = LIMITS, health: HealthPolicy | None = None, **options: Any) -> Any:
    """The target for *urls*."""
    origins = [Origin(url, limits, policy=health) for url in urls]
    try:
        yield UpstreamTarget(origins, **options)
        assert all(origin.outstanding == 0 for origin in origins)
    finally:
        for origin in origins:
            origin.close_idle()
    assert [origin.describe()["connections"] for origin in origins] == [0] * len(urls), "a connection was leaked"


NO_RETRIES = RetryBudget(ratio=0.0, per_second=0.0)


def asked(
    path: str = "/orders/9", method: str = "GET", body: bytes = b"", query: bytes = b"", *headers: tuple[bytes, bytes]
) -> Request:
    sent = [(b"host", b"api.example:8000"), *headers]
    return Request(method, path, query, sent, body, "192.0.2.1", "req-1", peer="192.0.2.1", principal=ALICE)


def to(auth: str = "required") -> Resolved:
    return Resolved(Route("/orders", ("http://any",), auth), "/9")


async def forward(request: Request, *urls: str, auth: str = "required", **options: Any) -> Response:
    with proxy(*urls, **options) as target:
        answer: Response = await target.handle(request, to(auth))
    return answer


async def refused_with(request: Request, *urls: str, **options: Any) -> int:
    with pytest.raises(ProblemError) as caught:
        await forward(request, *urls, **options)
    return caught.value.status


class FakeWire:
    """The client's side in memory. *parts*: its body (an exception is raised in its turn); *length* as declared.

    `written` is what it got; `taking` holds its reading up until it is set.
    """

    def __init__(
        self, parts: Sequence[bytes | Exception] = (), *, length: int | None = None, switches: bool = True
    ) -> None:
        self.parts = list(parts)
        self.has_body = bool(parts)
        self.length = length
        self.body_limit = 1 << 20
        self.switches = switches
        self.was_cut = False
        self.started: Response | None = None
        self.switched: Response | None = None
        self.written: list[bytes] = []
        self.gone = trio.Event()
        self._writes = trio.lowlevel.ParkingLot()
        self.taking = trio.Event()
        self.taking.set()
        self.before_part: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self.to_client, self.from_proxy = trio.open_memory_channel[bytes](1)
        self.to_proxy, self.from_client = trio.open_memory_channel[bytes](1)

    async def receive(self) -> bytes:
        await self.before_part()
        part = self.parts.pop(0) if self.parts else b""
        if isinstance(part, Exception):
            raise part
        return part

    async def read(self) -> bytes:
        body = b""
        while part := await self.receive():
            body += part
        return body

    async def wait_closed(self) -> None:
        await self.gone.wait()

    async def start(self, response: Response) -> None:
        await trio.lowlevel.checkpoint()
        assert self.started is None
        self.started = response

    async def write(self, data: bytes) -> None:
        await self.taking.wait()
        await trio.lowlevel.checkpoint()
        if self.gone.is_set():
            raise ClientGone
        assert data
        self.written.append(data)
        self._writes.unpark_all()

    async def got(self, data: bytes) -> None:
        """Return when what was written ends with *data*."""
        with trio.fail_after(2):
            while not b"".join(self.written).endswith(data):
                await self._writes.park()

    async def switch(self, response: Response) -> "FakeWire.Duplex":
        await trio.lowlevel.checkpoint()
        self.switched = response
        return FakeWire.Duplex(self)

    def cut(self) -> None:
        self.was_cut = True

    class Duplex:
        def __init__(self, wire: "FakeWire") -> None:
            self._wire = wire

        async def receive(self) -> bytes:
            try:
                return await self._wire.from_client.receive()
            except trio.EndOfChannel:
                return b""

        async def send(self, data: bytes) -> None:
            await self._wire.to_client.send(data)


def through(wire: FakeWire, method: str = "GET", *headers: tuple[bytes, bytes]) -> Request:
    request = asked("/orders/9", method, b"", b"", *headers)
    request.wire = wire
    return request
