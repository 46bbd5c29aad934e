"""Whatever bytes come, in whatever pieces: an answer that is a refusal, or the end; no exception and no hang.

The long ones run in slices, too: `WEIR_FUZZ_INPUTS=10000 pytest -m long --hypothesis-seed=N` for each N.
"""

import os
import re
from collections import deque

import pytest
import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from gateway.address import TrustedProxies
from gateway.asgi import GatewayApp
from gateway.http1.connection import ConnectionLimits, Ends, Handover, Http1Connection
from gateway.http1.heads import Heads
from gateway.http1.parser import HeadLimits, RequestParser
from gateway.request import ClientGone, Response
from tests.gateway.support import World

PIECES = [
    b"GET /open HTTP/1.1\r\n", b"POST /open HTTP/1.1\r\n", b"HEAD /users HTTP/1.0\r\n", b"CONNECT a:1 HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET http://a/open HTTP/1.1\r\n", b"GET ",
    b"GET /open RTSP/1.0\r\n", b"SOURCE / ICE/1.0\r\n", b"POST", b" /orders", b" HTTP/1.1", b"\r\n", b"\r\n\r\n",
    b"\n", b"\r", b"\0", b":", b" ", b";", b"/..", b"%2f", b"Host: a\r\n", b"Host: a\r\n\r\n", b"Content-Length: 5\r\n",
    b"Content-Length: 5\r\n\r\nabcde", b"Content-Length: 99\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nabcde\r\n", b"1;a=b\r\nx\r\n", b"0\r\n\r\n", b"0\r\nT: t\r\n\r\n",
    b"ffffffffffffffff\r\n", b"Upgrade: websocket\r\n", b"Upgrade: h2c\r\n", b"Connection: Upgrade\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n", b"X: " + b"x" * 300 + b"\r\n",
    b"Authorization: Bearer good\r\n", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"\xff\xfe",
    b"a: b\r\n" * 20,
    b"GET /open HTTP/1.1\r\nHost: a\r\n\r\n", b"POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    b"POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /open HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 3\r\n\r\nabc",
]  # fmt: skip
LIMITS = ConnectionLimits(head=HeadLimits(size=400, fields=12), max_body=64, max_requests=20)
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Z]")
TEXT = st.lists(st.sampled_from(PIECES) | st.binary(max_size=6), max_size=12).map(b"".join)
CUTS = st.lists(st.integers(0, 400), max_size=4)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({*(cut for cut in cuts if cut < len(data)), len(data)})
    return [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False) if begin < end]


class Memory:
    """A transport whose client sends *parts* and then nothing more."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = deque(parts)
        self.sent = b""
        self.is_reset = False

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._parts.popleft() if self._parts else b""

    def has_ended(self) -> bool:
        return not self._parts

    async def send(self, data: bytes) -> None:
        if self.is_reset:
            raise ClientGone
        self.sent += data

    async def say_end(self) -> None:
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        self.is_reset = True

    def reset(self) -> None:
        self.is_reset = True


def parse(data: bytes, cuts: list[int]) -> tuple[list[tuple[str, bytes, bytes, bool]], bool]:
    parser = RequestParser(LIMITS.head)
    for part in pieces_of(data, cuts):
        parser.feed(part)
    read = [(each.method, each.target, b"".join(each.parts), each.complete) for each in parser.messages]
    return read, parser.error is not None


def converse(data: bytes, cuts: list[int]) -> bytes:
    world = World(overloaded=lambda: False)
    world.target.answer = lambda request: Response(200, [], request.body)
    transport = Memory(pieces_of(data, cuts))
    handovers: list[Handover | None] = []

    async def run() -> None:
        app = GatewayApp(world.pipeline, TrustedProxies(), max_body=64, max_in_flight=1)
        connection = Http1Connection(
            transport, Ends(("127.0.0.1", 1), None, False), app.serve, app.takes_upgrade, LIMITS, Heads()
        )
        with trio.fail_after(1000):
            handovers.append(await connection.run())

    trio.run(run, clock=MockClock(autojump_threshold=0))
    if handovers == [None]:
        statuses = [int(status) for status in STATUS.findall(transport.sent)]
        assert not transport.sent or statuses
        assert all(status in (100, 200, 204) or 400 <= status < 500 or status in (501, 505) for status in statuses)
    for request in world.target.seen:
        admitted = ("/open", "/users", "/orders") if request.principal else ("/open",)
        assert request.path.startswith(admitted)
        assert len(request.body) <= 64
    return transport.sent


def check_parser(data: bytes, cuts: list[int]) -> None:
    """It reads the same requests, however the bytes are cut. (Before a line of RTSP it may refuse one more of them.)"""
    whole, cut = parse(data, []), parse(data, cuts)
    assert whole == cut or b" RTSP/" in data or b" ICE/" in data


QUICK = settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
THOROUGH = settings(QUICK, max_examples=int(os.environ.get("WEIR_FUZZ_INPUTS", "200000")))


@QUICK
@given(TEXT, CUTS)
@example(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 500, [90])
def test_a_parser_reads_the_same_requests_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    check_parser(data, cuts)


@QUICK
@given(TEXT, CUTS)
@example(b"HEAD /users HTTP/1.0\r\nAuthorization: Bearer good\r\n\r\n", [])
@example(b"POST /orders HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n", [30])
def test_a_connection_answers_or_refuses_or_ends(data: bytes, cuts: list[int]) -> None:
    converse(data, cuts)


@pytest.mark.long
@THOROUGH
@given(TEXT, CUTS)
def test_a_parser_reads_the_same_requests_however_they_are_cut_at_length(data: bytes, cuts: list[int]) -> None:
    check_parser(data, cuts)


@pytest.mark.long
@THOROUGH
@given(TEXT, CUTS)
def test_a_connection_answers_or_refuses_or_ends_at_length(data: bytes, cuts: list[int]) -> None:
    converse(data, cuts)
