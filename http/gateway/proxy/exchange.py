"""One request and its answer over one connection to an upstream.

No task and no channel, but for a body that is streamed up, as the answer may begin before its end, and an answer of
unknown length, whose client may leave while nothing comes.
"""

import trio

from gateway.forwarding import response_headers
from gateway.problem import ProblemError
from gateway.proxy.origin import Connection, Origin
from gateway.proxy.outgoing import Outgoing
from gateway.proxy.reader import BadAnswer
from gateway.proxy.transport import Broken, TooSlow
from gateway.proxy.tunnel import tunnel
from gateway.request import ClientGone, Response, Wire


class Exchange:
    """`begun`: something of the answer has gone to the client, so that there can be no other."""

    __slots__ = ("_limits", "_origin", "_outgoing", "_patience", "_reader", "_transport", "_wire", "begun")

    def __init__(self, origin: Origin, connection: Connection, outgoing: Outgoing, wire: Wire | None) -> None:
        self._origin = origin
        self._limits = origin.limits
        self._reader = connection.reader
        self._transport = connection.transport
        self._outgoing = outgoing
        self._wire = wire
        self._patience: trio.CancelScope
        """Ends the wait for the answer."""
        self.begun = False

    async def run(self, first: bytes) -> Response:
        """Send *first* (and the rest of the body), and pass the answer on.

        Raises Broken, BadAnswer, TooSlow, ProblemError for an answer too large, and what the wire raises.
        """
        self._reader.begin(self._outgoing.method)
        self._transport.sent = False
        if self._outgoing.source is not None:
            return await self._run_both(first, self._outgoing.source)
        try:
            await self._transport.send_all(first)
        except Broken:
            if not self._transport.sent:
                raise
            # It may have answered before it closed, with 413 say; if not, the reader finds out.
        # Given at once: to change the deadline of a scope costs as much as a third of the scope.
        self._patience = trio.CancelScope(deadline=trio.current_time() + self._limits.response)
        return await self._answer()

    async def _run_both(self, first: bytes, source: Wire) -> Response:
        """The body up and the answer down at once. An answer that ends first ends the body: nobody needs it."""
        self._patience = trio.CancelScope()
        failure: Exception | None = None
        response: Response | None = None

        async def send() -> None:
            nonlocal failure
            try:
                await self._send_body(first, source)
            except Broken:
                pass  # as in `run`
            except Exception as error:
                failure = error
                nursery.cancel_scope.cancel()
            self._patience.deadline = trio.current_time() + self._limits.response

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            try:
                response = await self._answer()
            except Exception as error:
                failure = failure or error
            nursery.cancel_scope.cancel()
        if response is not None:
            return response
        assert failure is not None
        raise failure

    async def _send_body(self, first: bytes, source: Wire) -> None:
        outgoing, transport = self._outgoing, self._transport
        await transport.send_all(first)
        outgoing.consumed = True
        while part := await source.receive():
            await transport.send_all(outgoing.framed(part))
        if outgoing.chunked:
            await transport.send_all(outgoing.framed(b""))

    # The answer.

    async def _answer(self) -> Response:
        reader = self._reader
        with self._patience:
            while not reader.head:
                await self._read()
            whole = self._wire is None or (reader.length is not None and reader.length <= self._limits.whole)
            while whole and not reader.complete and reader.status != 101:
                await self._read()
                self._check_size()
        if self._patience.cancelled_caught:
            raise TooSlow
        self._origin.succeeded()
        if reader.status == 101:
            return await self._switch()
        headers = response_headers(reader.headers, head=not reader.complete or self._outgoing.method == "HEAD")
        response = Response(reader.status, headers)
        if reader.complete:
            self._check_size()
            response.body = b"".join(reader.take())
            return response
        assert self._wire is not None
        await self._stream(response, self._wire)
        return Response(response.status, sent=True)

    async def _read(self) -> None:
        data = await self._transport.receive()
        if data:
            self._reader.feed(data)
        else:
            self._reader.feed_end()

    def _check_size(self) -> None:
        if self._wire is None and self._reader.held > self._limits.max_response:
            raise ProblemError(502, f"the service behind this path sent more than {self._limits.max_response} bytes")

    async def _stream(self, response: Response, wire: Wire) -> None:
        self.begun = True
        await wire.start(response)
        if self._reader.length is not None or self._outgoing.source is not None:
            await self._stream_parts(wire)
            return
        # Nobody knows when the next part comes: a client that leaves in between is not waited out.
        left = False
        failure: Exception | None = None

        async def watch() -> None:
            nonlocal left
            await wire.wait_closed()
            left = True
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            try:
                await self._stream_parts(wire)
            except Exception as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if left and not self._reader.complete:
            raise ClientGone("it left within the answer")

    async def _stream_parts(self, wire: Wire) -> None:
        """Each part as it comes: what is read is taken by the client before more is read."""
        reader = self._reader
        while True:
            for part in reader.take():
                await wire.write(part)
            if reader.complete:
                return
            with trio.move_on_after(self._limits.idle) as patience:
                await self._read()
            if patience.cancelled_caught:
                raise TooSlow

    async def _switch(self) -> Response:
        if not self._outgoing.upgrade or self._wire is None:
            raise BadAnswer("it changed to a protocol that nobody asked for")
        self.begun = True
        return await tunnel(self._transport, self._reader, self._wire, self._limits.tunnel_idle)
