"""One connection: Hypercorn's protocols on a trio stream, inside fences.

What Hypercorn 0.18 lets one connection do to the worker or to a shutdown is stopped here, each with a test:
an exception of a connection ended the worker; a slow reader held `send_all` for ever, as it is shielded; a
cancelled `send_eof` left the socket open; a task was restarted twice a request to watch for idleness.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import h11
import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Response
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, LifespanState
from hypercorn.utils import parse_socket_addr

from gateway.ids import new_id
from gateway.refusals import unreadable

log = structlog.get_logger(__name__)

_CHUNK = 64 * 1024
_CLOSE_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Seconds. `write_timeout`: within which a client must take each 64 KiB of what is sent to it.
    `header_timeout`: within which a new connection must have sent its first request's head."""

    keep_alive_timeout: float = 75.0
    header_timeout: float = 10.0
    write_timeout: float = 10.0
    h2c: bool = False


_VERSIONS = (b"1.0", b"1.1")


class _OtherVersion(Exception):
    """A request of another HTTP version, or the preface of HTTP/2, where only HTTP/1 is spoken."""


class _Wire(h11.Connection):
    """h11's parser, deaf to what follows a client's last request: that request is answered all the same.

    h11 makes of it an error of the client (it said `Connection: close`, and went on), in place of the answer.
    Once the connection is to be closed (`over`) it is deaf to everything: Hypercorn would wait for its turn for ever.
    """

    over = False

    def receive_data(self, data: bytes) -> None:
        if not data or self.their_state is not h11.MUST_CLOSE:
            super().receive_data(data)

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        if self.over or (self.their_state is h11.MUST_CLOSE and self.trailing_data[0]):
            return h11.NEED_DATA
        return super().next_event()


class _Http1(H11Protocol):
    """HTTP/1.1 without upgrades to cleartext HTTP/2, that says when it is the last answer, and why it refuses."""

    connection: h11.Connection

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._wire = self.connection = _Wire(h11.SERVER, self.config.h11_max_incomplete_size)
        self._send, self.send = self.send, self._send_or_end

    async def _check_protocol(self, event: h11.Request) -> None:
        # An `Upgrade: h2c` is an offer and may be ignored (RFC 9110 §7.8); a preface is no request.
        if event.http_version not in _VERSIONS:
            raise _OtherVersion

    async def handle(self, event: Event) -> None:
        try:
            await super().handle(event)
        except _OtherVersion:
            await self._send_error_response(505)
            await self.send(Closed())

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, Response) and event.status_code >= 200 and self.context.terminated.is_set():
            event = replace(event, headers=[*event.headers, (b"connection", b"close")])
        await super().stream_send(event)

    async def _send_or_end(self, event: Event) -> None:
        if isinstance(event, Closed):
            self._wire.over = True
        await self._send(event)

    async def _send_error_response(self, status_code: int) -> None:
        """Hypercorn's own refusals, of requests that nobody could read, are problems like all the others."""
        refusal = unreadable(status_code, new_id())
        length = (b"content-length", b"%d" % len(refusal.body))
        ours = self.config.response_headers("h11")
        headers = [*refusal.headers, length, (b"connection", b"close"), *ours]
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        await self._send_h11_event(h11.Data(data=refusal.body))
        await self._send_h11_event(h11.EndOfMessage())


class Connection(TCPServer):
    """Serves *app* on *stream* until either side is done. *on_fault* is told of an exception it ended with."""

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        state: LifespanState,
        stream: trio.SocketStream,
        *,
        limits: ConnectionLimits,
        on_fault: Callable[[], None],
    ) -> None:
        super().__init__(app, config, context, state, stream)  # type: ignore[arg-type]
        self._limits = limits
        self._on_fault = on_fault
        self._scope = trio.CancelScope()
        # Its deadline moves with every request: one task watches for idleness, as long as the connection lives.
        self._idle = trio.CancelScope(deadline=trio.current_time() + limits.header_timeout)
        self._is_idle = True
        self._reading = True

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
        """Never raises but Cancelled: nothing that happens on one connection ends the others."""
        try:
            with self._scope:
                try:
                    await self._converse()
                finally:
                    await self._close()
        except BaseException as error:
            cancelled, rest = _without_cancelled(error)
            if rest is not None:
                if not isinstance(rest, Exception):
                    raise  # KeyboardInterrupt: the program's business
                self._on_fault()
                log.error("a connection ended by a fault", exc_info=rest)
            if cancelled is not None:
                raise cancelled from None

    async def _converse(self) -> None:
        socket = self.stream.socket
        try:
            client = parse_socket_addr(socket.family, socket.getpeername())
            server = parse_socket_addr(socket.family, socket.getsockname())
        except OSError:
            return  # gone before it was greeted
        kind = ProtocolWrapper if self._limits.h2c else _Http1
        async with TaskGroup() as group:
            self._task_group = group
            self.protocol = kind(  # type: ignore[assignment]
                self.app,
                self.config,
                self.context,
                group,
                ConnectionState(self.state.copy()),
                False,
                client,
                server,
                self.protocol_send,
            )
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
                await self._close()
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
                        await trio.aclose_forcefully(self.stream)
                        raise trio.ClosedResourceError
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await self._tell_closed()

    async def _tell_closed(self) -> None:
        # An app that does not receive makes this wait: its queue is full of what it did not read.
        with trio.move_on_after(_CLOSE_TIMEOUT_S):
            await self.protocol.handle(Closed())

    async def _close(self) -> None:
        """Say goodbye if there is time, and close whatever happens."""
        try:
            with trio.move_on_after(_CLOSE_TIMEOUT_S, shield=True):
                await self.stream.send_eof()
        except (trio.BrokenResourceError, trio.BusyResourceError, trio.ClosedResourceError):
            pass  # they are gone, or it is closed already
        finally:
            self.stream.socket.close()

    async def _watch_idle(self) -> None:
        with self._idle:
            await trio.sleep_forever()
        if self._reading:
            with trio.move_on_after(_CLOSE_TIMEOUT_S, shield=True):
                await self.protocol.handle(Closed())
            self.stream.socket.close()


def _without_cancelled(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """The part of *error* that is cancellation, and the part that is not."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)
    return (error, None) if isinstance(error, trio.Cancelled) else (None, error)
