"""One request and its answer on an HTTP/1.1 connection. The `Wire` of targets that stream."""

from __future__ import annotations

from typing import Protocol

import trio

from gateway.http1.heads import BODILESS, CLOSE, CONTINUE, KEEP_ALIVE, Heads
from gateway.http1.parser import Message, RequestParser
from gateway.http1.transport import Transport
from gateway.problem import ProblemError
from gateway.request import ClientGone, Response, body_wait

# A body that nobody reads is taken to its end when that is so near; else the connection is closed.
_DISCARD = 64 * 1024
# While an answer is made, what a client sends behind its request stays in the kernel above this.
_READ_AHEAD = 64 * 1024


class Peer(Protocol):
    """The connection, as its exchanges see it."""

    parser: RequestParser
    transport: Transport
    heads: Heads
    max_body: int
    body_timeout: float
    body_rate: float
    """Bytes a second that a body must come with, on average, beyond *body_timeout* seconds."""
    closing: bool
    """No request after this one."""

    async def fill(self) -> int:
        """Read once more; how many bytes came, 0 at the end of what the client sends. Raises ClientGone."""
        ...


class Exchange:
    """*message*'s body in, one answer out: `respond`, or `start`, `write` and `finish`.

    Once it is over, the connection's `closing` says whether it may carry another one.
    """

    __slots__ = (
        "_chunked",
        "_continued",
        "_left",
        "_peer",
        "_received",
        "_waited",
        "body_limit",
        "done",
        "has_body",
        "is_cut",
        "length",
        "message",
        "request_id",
        "started",
        "status",
        "switched",
        "switches",
    )  # fmt: skip

    def __init__(self, peer: Peer, message: Message) -> None:
        self._peer = peer
        self.message = message
        self.has_body = message.chunked or bool(message.length)
        self.length = message.length
        self.body_limit = peer.max_body
        self.switches = True
        self.status = 0
        self.request_id = ""
        """As its server named it, for the log."""
        self.started = False
        """The head of an answer is out."""
        self.done = False
        """And so is all of it."""
        self.is_cut = False
        self.switched = False
        self._continued = not message.expects_continue
        self._received = 0
        self._waited = 0.0  # for parts of the body
        self._chunked = False
        self._left: int | None = None  # of a streamed answer whose length was told

    # The body of the request.

    async def receive(self) -> bytes:
        message = self.message
        if not self.has_body:
            return b""
        if self.length is not None and self.length > self.body_limit:
            raise self._too_large()
        if not message.parts and not message.complete:
            await self._wait_for_more()
        parts = message.parts
        if not parts:
            return b""
        part = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._received += len(part)
        if self._received > self.body_limit:
            raise self._too_large()
        return part

    async def read(self) -> bytes:
        parts = []
        while part := await self.receive():
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _wait_for_more(self) -> None:
        peer, message = self._peer, self.message
        if not self._continued:
            self._continued = True
            if not self.started:  # in the middle of an answer it would be taken for a part of it
                await peer.transport.send(CONTINUE)
        allowed = body_wait(peer.body_timeout, peer.body_rate, self._received, self._waited)
        began = trio.current_time()
        with trio.move_on_after(allowed) as timeout:
            while not message.parts and not message.complete:
                if peer.parser.error is not None:
                    peer.closing = True
                    raise ProblemError(400, "the framing of the body is broken")
                if not await peer.fill():
                    raise ClientGone("the client left in the middle of its body")
        if timeout.cancelled_caught:
            peer.closing = True
            raise ProblemError(408, "the rest of the body did not come in time")
        self._waited += trio.current_time() - began

    def _too_large(self) -> ProblemError:
        self._peer.closing = True
        return ProblemError(413, f"the body is larger than {self.body_limit} bytes")

    async def wait_closed(self) -> None:
        """Reads on meanwhile: what follows this request is kept for its turn, up to a small buffer."""
        peer = self._peer
        if peer.transport.has_ended():  # said without a wait, so that who asks under a cancelled scope is told, too
            return
        ahead = 0
        while ahead < _READ_AHEAD:
            try:
                if not (came := await peer.fill()):
                    return
                ahead += came
            except ClientGone:
                return
        await trio.sleep_forever()

    # The answer.

    async def respond(self, response: Response) -> None:
        """Send a whole answer at once. Raises ClientGone."""
        status, body = response.status, response.body
        head_only = self.message.method == "HEAD"
        self._settle_body()
        framing = self._connection_line()
        headers = response.headers
        if status not in BODILESS and status >= 200:
            told = head_only and (not body or any(name == b"content-length" for name, _ in headers))
            if not told:
                framing += b"content-length: %d\r\n" % len(body)
        self.status = status
        self.started = True
        head = self._peer.heads.of(status, headers, framing)
        await self._peer.transport.send(head if head_only or not body else head + body)
        self.done = True

    async def start(self, response: Response) -> None:
        self._settle_body()
        status, headers = response.status, response.headers
        lengths = [value for name, value in headers if name == b"content-length"]
        framing = b""
        if status in BODILESS or self.message.method == "HEAD":
            self._left = 0
        elif lengths:
            self._left = int(lengths[0])
        elif self.message.version == "1.0":
            self._peer.closing = True
        else:
            self._chunked = True
            framing = b"transfer-encoding: chunked\r\n"
        self.status = status
        self.started = True
        await self._peer.transport.send(self._peer.heads.of(status, headers, framing + self._connection_line()))

    async def write(self, data: bytes) -> None:
        """Raises ValueError for more than the length that was told."""
        if not data or self.message.method == "HEAD":
            return
        if self._chunked:
            await self._peer.transport.send(b"%x\r\n%b\r\n" % (len(data), data))
            return
        if self._left is not None:
            if len(data) > self._left:
                raise ValueError("the answer is longer than its content-length")
            self._left -= len(data)
        await self._peer.transport.send(data)

    @property
    def is_open(self) -> bool:
        """Some of the answer is out, and not all of it."""
        return self.started and not self.done

    async def finish(self) -> None:
        """End a streamed answer; one that is shorter than it said is cut."""
        if self.done or self.switched:
            return
        if self._left:
            self.cut()
        if self._chunked and not self.is_cut:
            await self._peer.transport.send(b"0\r\n\r\n")
        self.done = not self.is_cut

    def cut(self) -> None:
        self.is_cut = True
        self._peer.closing = True

    async def switch(self, response: Response) -> Switched:
        self.status = response.status
        self.started = self.switched = self.done = True
        self._peer.closing = True
        await self._peer.transport.send(self._peer.heads.of(response.status, response.headers, b""))
        return Switched(self._peer)

    def _settle_body(self) -> None:
        """Before the head goes out: what is to become of a body that nobody has read."""
        message = self.message
        if message.complete:
            return
        near = message.length is not None and message.length - self._received <= _DISCARD
        if not near or not self._continued or self._peer.parser.error is not None:
            self._peer.closing = True

    def _connection_line(self) -> bytes:
        if self._peer.closing:
            return CLOSE
        return KEEP_ALIVE if self.message.version == "1.0" else b""

    async def discard_body(self) -> None:
        """Take what is left of a small body that nobody read, so that the next request can be read."""
        while not self.message.complete:
            self.message.parts.clear()
            if not await self._peer.fill() or self._peer.parser.error is not None:
                raise ClientGone
        self.message.parts.clear()


class Switched:
    """What is left of the connection after `switch`: bytes both ways."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def receive(self) -> bytes:
        parser = self._peer.parser
        if parser.rest:
            rest, parser.rest = parser.rest, b""
            await trio.lowlevel.checkpoint()
            return rest
        return await self._peer.transport.receive()

    async def send(self, data: bytes) -> None:
        await self._peer.transport.send(data)
