"""One HTTP/1.1 connection: reads requests, has each answered in turn, and knows when it is over.

One task. While a request is answered nothing is read, unless its target does; so what a client pipelines waits in
the kernel. Times are watched from outside, by `due` (see `sweep`): a request costs no cancel scope and no timer.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from gateway.http1.exchange import Exchange
from gateway.http1.heads import Heads
from gateway.http1.parser import PREFACE, HeadLimits, Message, RequestParser, head_of
from gateway.http1.transport import Transport
from gateway.ids import new_id
from gateway.refusals import unreadable
from gateway.request import ClientGone, Response

# Requests answered without a wait in between, before others get a turn.
_TURN = 16
_LINGER_S = 2.0
_LINGER_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Seconds and bytes.

    `write_timeout`: within which a client must take each 64 KiB of what is sent to it. `header_timeout`: within
    which a request's head must have come, from its first byte (on a new connection: from its beginning).
    `body_timeout` and `body_rate`: a body may stand still for so long, plus what came of it at so many bytes a second.
    """

    keep_alive_timeout: float = 75.0
    header_timeout: float = 10.0
    handshake_timeout: float = 10.0
    write_timeout: float = 10.0
    body_timeout: float = 30.0
    body_rate: float = 1024.0
    max_body: int = 1024 * 1024
    max_requests: int = 10_000
    head: HeadLimits = field(default_factory=HeadLimits)
    h2c: bool = False


@dataclass(frozen=True, slots=True)
class Ends:
    """Who is connected to what: (host, port) each, None for a Unix socket."""

    client: tuple[str, int] | None
    server: tuple[str, int] | None
    tls: bool


@dataclass(frozen=True, slots=True)
class Handover:
    """The connection goes on in another protocol, which reads these bytes first."""

    data: bytes


Serve = Callable[[Exchange, Ends], Awaitable[None]]
"""Answers one request. Raises ClientGone when there is nobody to answer; anything else is a fault."""

Refuse = Callable[[int, str], Response]
"""The answer to what could not be read: from its status, and the id that it is given."""

Takes = Callable[[Exchange], bool]
"""Whether `Serve` itself answers a WebSocket handshake; else it is handed over."""


class Http1Connection:
    """*serve* is called for each request in turn. *on_answer*: called with each answer that is over, whole or cut (the
    log). *refuse* makes the answer to what is no request."""

    def __init__(
        self,
        transport: Transport,
        ends: Ends,
        serve: Serve,
        takes_upgrade: Takes,
        limits: ConnectionLimits,
        heads: Heads,
        on_answer: Callable[[Exchange, Ends, float], None] | None = None,
        refuse: Refuse = unreadable,
    ) -> None:
        self.transport = transport
        self.heads = heads
        self.max_body = limits.max_body
        self.body_timeout = limits.body_timeout
        self.body_rate = limits.body_rate
        self.parser = RequestParser(limits.head)
        self.closing = False
        self.due = trio.current_time() + limits.header_timeout
        """When it has waited for a request for too long (absolute)."""
        self._ends = ends
        self._serve = serve
        self._takes_upgrade = takes_upgrade
        self._limits = limits
        self._on_answer = on_answer
        self._refusal = refuse
        self._exchange: Exchange | None = None
        """The one whose answer is being made."""
        self._scope = trio.CancelScope()
        self._idle = True
        self._first = True

    def close_after_next(self) -> None:
        """The next answer, or the one under way, is the last."""
        self.closing = True

    def close_if_idle(self) -> None:
        """Close now if no request is in flight; with one, close after its answer."""
        self.closing = True
        if self._idle and not self.parser.in_head:
            self._scope.cancel()

    def sweep(self, now: float) -> None:
        """Close it if it has been waiting for too long."""
        if self.due <= now:
            self._scope.cancel()

    def abort(self) -> None:
        """Cut it now, in the middle of whatever it does."""
        self._scope.cancel()
        if self._exchange is not None and self._exchange.is_open:
            self.transport.reset()
        else:
            self.transport.abort()

    async def run(self) -> Handover | None:
        """Until either side is done; the transport is still open then. Raises what `serve` raises."""
        with self._scope:
            try:
                return await self._converse()
            except ClientGone:
                self.closing = True
        return None

    async def fill(self) -> int:
        data = await self.transport.receive()
        if data:
            self.parser.feed(data)
        return len(data)

    async def _converse(self) -> Handover | None:
        messages = self.parser.messages
        answered = unwaited = 0
        while True:
            if not messages and not await self._wait_for_head():
                return await self._preface_or_refusal()
            unwaited = unwaited + 1 if messages else 0
            message = messages.popleft()
            self._idle = False
            self.due = math.inf
            answered += 1
            self.closing = self.closing or not message.keep_alive or answered >= self._limits.max_requests
            if message.upgrade == b"websocket":
                if handover := await self._upgrade(message):
                    return handover
                self.closing = True  # what follows the handshake is nobody's, unless it is switched
            exchange = Exchange(self, message)
            await self._answer(exchange, self._serve(exchange, self._ends))
            if self.closing:
                await self._linger()
                return None
            self._idle = True
            limits = self._limits
            self.due = trio.current_time() + (
                limits.header_timeout if self.parser.in_head else limits.keep_alive_timeout
            )
            if unwaited >= _TURN:
                unwaited = 0
                await trio.lowlevel.checkpoint()

    async def _wait_for_head(self) -> bool:
        """Until a head is whole; False when none comes, or something else does."""
        parser = self.parser
        while not parser.messages:
            if parser.error is not None:
                return False
            began = parser.in_head
            data = await self.transport.receive()
            if not data:
                return False
            if self._first:
                self._first = False
                if self._limits.h2c and data.startswith(PREFACE[:16]):
                    parser.rest = data
                    return False
            parser.feed(data)
            if parser.in_head and not began:
                self.due = min(self.due, trio.current_time() + self._limits.header_timeout)
        return True

    async def _preface_or_refusal(self) -> Handover | None:
        parser = self.parser
        if parser.rest is not None:
            self.due = math.inf
            return Handover(parser.rest)
        if parser.error is not None:
            await self._refuse(parser.error.status)
            await self._linger()
        return None

    async def _refuse(self, status: int) -> None:
        """Answer what nobody could read: a problem like all the others."""
        self.due = math.inf
        self.closing = True
        exchange = Exchange(self, Message())
        exchange.message.complete = True
        exchange.request_id = new_id()
        response = self._refusal(status, exchange.request_id)
        await self._answer(exchange, exchange.respond(response))

    async def _upgrade(self, message: Message) -> Handover | None:
        if self._takes_upgrade(Exchange(self, message)) or self.parser.rest is None:
            return None
        return Handover(head_of(message) + b"".join(message.parts) + self.parser.rest)

    async def _answer(self, exchange: Exchange, answer: Awaitable[None]) -> None:
        """Wait for *answer*, and log it. Raises ClientGone for one that was cut, and what *answer* raises."""
        started = trio.current_time()
        self._exchange = exchange
        try:
            await answer
            await exchange.finish()
        except BaseException:
            if not exchange.done:
                exchange.cut()
            raise
        finally:
            self._exchange = None
            if exchange.is_cut and exchange.is_open:
                self.transport.reset()  # an end might be taken for that of an answer that told no length
            if self._on_answer is not None and exchange.started:
                self._on_answer(exchange, self._ends, trio.current_time() - started)
        if exchange.is_cut:
            raise ClientGone
        if not exchange.message.complete and not self.closing:
            with trio.move_on_after(_LINGER_S) as timeout:
                await exchange.discard_body()
            self.closing = timeout.cancelled_caught

    async def _linger(self) -> None:
        """The last answer is out. Closing with input unread would make the kernel reset the connection, and the
        client might never see the answer: so say that it was the last, and take what still comes for a while."""
        await self.transport.say_end()
        taken = 0
        with trio.move_on_after(_LINGER_S):
            while taken < _LINGER_BYTES and (data := await self.transport.receive()):
                taken += len(data)
