"""One connection that is not plain HTTP/1.1: Hypercorn's HTTP/2 and WebSocket on a stream, inside fences.

What Hypercorn 0.18 lets one connection do to the worker or to a shutdown is stopped here, each with a test:
an exception of a connection ended the worker; a slow reader held `send_all` for ever, as it is shielded; a
cancelled `send_eof` left the socket open; an answer cut short kept its stream open; a task was restarted twice a
request to watch for idleness; a WebSocket was closed with input unread, whereupon the kernel takes back what was said
last. See also `hypercorn_websocket.py`.
"""

import math

import trio
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived
from h2.events import Event as Http2Event
from h2.exceptions import ProtocolError
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, LifespanState

from gateway.http1.connection import ConnectionLimits, Ends
from gateway.hypercorn_websocket import BoundedBuffer, WebSocketProtocol

_CHUNK = 64 * 1024
_CLOSE_TIMEOUT_S = 1.0


class Replay:
    """A stream that first gives back what was read from it already."""

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream], data: bytes) -> None:
        self._stream = stream
        self._data = data
        self.send_all = stream.send_all
        self.aclose = stream.aclose

    @property
    def socket(self) -> trio.socket.SocketType:
        stream = self._stream
        return stream.socket if isinstance(stream, trio.SocketStream) else stream.transport_stream.socket

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._data:
            await trio.lowlevel.checkpoint()
            data, self._data = self._data, b""
            return data
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_eof(self) -> None:
        if isinstance(self._stream, trio.SocketStream):
            await self._stream.send_eof()
        else:
            await self._stream.aclose()


class Http2(H2Protocol):
    """What Hypercorn 0.18 leaves out: an answer that its app did not end is reset (its stream stayed open, and the
    client waiting), and so is a body that goes on after its answer (it ended the connection, with all of its
    streams: RFC 9113 §8.1)."""

    async def _handle_events(self, events: list[Http2Event]) -> None:
        for event in events:
            if isinstance(event, DataReceived) and event.stream_id not in self.streams:
                await self._refuse_late(event)
            else:
                await super()._handle_events([event])
        await self._flush()  # what no event told of

    async def _refuse_late(self, event: DataReceived) -> None:
        try:
            self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id not in self.stream_buffers:  # the answer is out
                self.connection.reset_stream(event.stream_id, ErrorCodes.NO_ERROR)
        except ProtocolError:
            pass  # it is closed already
        await self._flush()

    async def _create_stream(self, request: RequestReceived) -> None:
        await super()._create_stream(request)
        stream = self.streams.get(request.stream_id)
        if isinstance(stream, WSStream):
            stream.buffer = BoundedBuffer(self.config.websocket_max_message_size)

    async def _close_stream(self, stream_id: int) -> None:
        buffer = self.stream_buffers.get(stream_id)
        if not self.closed and buffer is not None and not buffer._complete:
            try:
                self.connection.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)
            except ProtocolError:
                pass  # the client has reset it, or is gone
            await self._flush()
        await super()._close_stream(stream_id)


class HypercornConnection(TCPServer):
    """Serves *app* on *stream* until either side is done. Its protocol is HTTP/2 if *h2*, else WebSocket."""

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        state: LifespanState,
        stream: Replay,
        ends: Ends,
        *,
        h2: bool,
        limits: ConnectionLimits,
    ) -> None:
        super().__init__(app, config, context, state, stream)  # type: ignore[arg-type]
        self.stream: Replay = stream  # type: ignore[assignment]
        self._limits = limits
        self._ends = ends
        self._h2 = h2
        self._scope = trio.CancelScope()
        # Its deadline moves with every request: one task watches for idleness, as long as the connection lives.
        self._idle = trio.CancelScope(deadline=trio.current_time() + limits.header_timeout)
        self._is_idle = True
        self._reading = True
        self._ended = False
        """What the client still sends is read, for a while, and thrown away."""

    def close_after_next(self) -> None:
        """Nothing to do: `context.terminated` closes it after the next answer."""

    def close_if_idle(self) -> None:
        """Close now if no request is in flight. With one, `context.terminated` closes it after the answer."""
        if self._is_idle:
            self._idle.cancel()

    def abort(self) -> None:
        """Cut it now, in the middle of whatever it does."""
        self._scope.cancel()
        # Closing is what ends a send: that one is shielded from our cancellation.
        self.stream.socket.close()

    async def run(self) -> None:
        """Raises what goes wrong on it: its server fences it."""
        with self._scope:
            try:
                await self._converse()
            finally:
                await self._close()

    async def _converse(self) -> None:
        async with TaskGroup() as group:
            self._task_group = group
            ends, state = self._ends, ConnectionState(self.state.copy())
            arguments = (self.app, self.config, self.context, group, state, ends.tls, ends.client, ends.server)
            if self._h2:
                self.protocol = Http2(*arguments, self.protocol_send)  # type: ignore[assignment]
            else:
                self.protocol = WebSocketProtocol(*arguments, self.protocol_send)  # type: ignore[assignment]
            await self.protocol.initiate()
            group.spawn(self._watch_idle)
            await self._read_data()
            self._reading = False
            self._idle.cancel()

    async def protocol_send(self, event: Event) -> None:
        match event:
            case RawData():
                await self._write(event.data)
            case Closed():
                await self._end()
                await self._tell_closed()
            case Updated(idle=idle):
                self._is_idle = idle
                self._idle.deadline = trio.current_time() + self._limits.keep_alive_timeout if idle else math.inf
                if idle and self.context.terminated.is_set():
                    self._idle.cancel()

    async def _write(self, data: bytes) -> None:
        """Send all of *data*, or close the connection: what follows half an answer would be read as its rest."""
        async with self.send_lock:
            view = memoryview(data)
            try:
                for start in range(0, len(view), _CHUNK):
                    # Shielded, so that the end of a handler does not cut its last bytes; timed, so it ends.
                    with trio.move_on_after(self._limits.write_timeout, shield=True) as timeout:
                        await self.stream.send_all(view[start : start + _CHUNK])
                    if timeout.cancelled_caught:
                        self.stream.socket.close()
                        raise trio.ClosedResourceError
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await self._tell_closed()

    async def _tell_closed(self) -> None:
        # An app that does not receive makes this wait: its queue is full of what it did not read.
        with trio.move_on_after(_CLOSE_TIMEOUT_S):
            await self.protocol.handle(Closed())

    async def _read_data(self) -> None:
        while True:
            try:
                data = await self.stream.receive_some(_CHUNK)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                break
            if not self._ended:
                await self.protocol.handle(RawData(data))
            if not data:
                break
        await self.protocol.handle(Closed())

    async def _end(self) -> None:
        """Say goodbye, and close at once or when the client has, too: it must not lose what it was told last."""
        if self._h2 or not self._reading:
            await self._close()
        elif not self._ended:
            self._ended = True
            self._idle.deadline = trio.current_time() + _CLOSE_TIMEOUT_S
            await self._say_end()

    async def _close(self) -> None:
        """Say goodbye if there is time, and close whatever happens."""
        try:
            await self._say_end()
        finally:
            self.stream.socket.close()

    async def _say_end(self) -> None:
        try:
            with trio.move_on_after(_CLOSE_TIMEOUT_S, shield=True):
                await self.stream.send_eof()
        except (trio.BrokenResourceError, trio.BusyResourceError, trio.ClosedResourceError):
            pass  # they are gone, or it is closed already

    async def _watch_idle(self) -> None:
        with self._idle:
            await trio.sleep_forever()
        if self._reading:
            with trio.move_on_after(_CLOSE_TIMEOUT_S, shield=True):
                await self.protocol.handle(Closed())
            self.stream.socket.close()
