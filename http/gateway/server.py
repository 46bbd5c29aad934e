"""Serves an app on sockets that somebody else opened: HTTP/1.1 by ourselves, HTTP/2 and WebSocket by Hypercorn.

The place of `hypercorn.trio.run.worker_serve`, which opens its own sockets, hard-codes its connection class
and is ended by one connection's exception.
"""

import errno
import socket
import ssl
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import parse_socket_addr

from actors.metrics import Metrics
from gateway.access_log import ServerConfig, log_exchange
from gateway.address import LOCAL, normalised
from gateway.asgi_types import App, Receive, Scope, Send
from gateway.http1.asgi import AsgiServe, takes_no_upgrade
from gateway.http1.connection import ConnectionLimits, Ends, Handover, Http1Connection
from gateway.http1.exchange import Exchange
from gateway.http1.heads import Heads
from gateway.http1.transport import PlainTransport, TlsTransport
from gateway.hypercorn_connection import HypercornConnection, Replay
from gateway.lifespan import Lifespan
from gateway.refusals import unreadable
from gateway.request import Headers, Response

log = structlog.get_logger(__name__)

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]
Connection = Http1Connection | HypercornConnection

_ABORT_GRACE_S = 1.0
_MAX_SWEEP_S = 1.0
_ACCEPTS_A_TURN = 64
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_NO_ROOM_PAUSE_S = 0.1


class NativeApp(ABC):
    """An app that answers HTTP/1.1 without ASGI; as an ASGI app it answers HTTP/2 and WebSockets."""

    @abstractmethod
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    @abstractmethod
    async def serve(self, exchange: Exchange, ends: Ends) -> None:
        """Answer one request. Raises ClientGone."""

    @abstractmethod
    def unreadable(self, status: int, request_id: str) -> Response:
        """The answer to what could not be read as a request."""

    @abstractmethod
    def takes_upgrade(self, exchange: Exchange) -> bool:
        """Whether `serve` answers this WebSocket handshake; else the app gets it by ASGI."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """How many connections at once, in all and from one address (a load balancer counts as one)."""

    max_connections: int = 4096
    max_connections_per_address: int = 1024
    connection: ConnectionLimits = field(default_factory=ConnectionLimits)


class TlsRef:
    """The TLS context in force; None: cleartext. A reload replaces it, and connections that are open keep theirs."""

    __slots__ = ("current",)

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.current = context


class Server:
    """One app on some listening sockets. Use once: `serve` it, `drain` it.

    Args:
        name: of the listener, in metrics and logs.
        app: an ASGI app, or a `NativeApp`.
        sockets: listening; `serve` leaves them open, `drain` closes them.
        lifespan: whether the app wants its lifespan run.
        log_requests: one line a request.
        tls: what to greet new connections with.
        extra: more fields of every response, by any protocol.
    """

    def __init__(
        self,
        name: str,
        app: App | NativeApp,
        sockets: Sequence[socket.socket],
        metrics: Metrics,
        limits: ServerLimits | None = None,
        *,
        lifespan: bool = False,
        log_requests: bool = True,
        tls: TlsRef | None = None,
        extra: Headers | None = None,
    ) -> None:
        self._name = name
        self._app = app
        self._sockets = sockets
        self._limits = limits or ServerLimits()
        self._lifespan = lifespan
        self._tls = tls or TlsRef()
        self._log = log_exchange if log_requests else None
        self._h2_config = ServerConfig(log_requests=log_requests, extra=extra)
        self._websocket_config = ServerConfig(log_requests=log_requests, max_requests=1, extra=extra)
        self._context = WorkerContext(None)
        self._state: dict[str, Any] = {}
        self._heads = Heads(extra=extra)
        self._serve_one = app.serve if isinstance(app, NativeApp) else AsgiServe(app, self._state)
        self._takes_upgrade = app.takes_upgrade if isinstance(app, NativeApp) else takes_no_upgrade
        self._refuse = app.unreadable if isinstance(app, NativeApp) else unreadable
        self._accepting = trio.CancelScope()
        self._live: set[Connection] = set()
        self._lingering = False
        self._accepted = 0
        self._changed = trio.Event()
        self._per_address: Counter[str] = Counter()
        self._opened = metrics.counter("weir_connections_opened_total", "Connections served.", ("listener",))
        self._closed = metrics.counter("weir_connections_closed_total", "Of these, the closed ones.", ("listener",))
        self._refused = metrics.counter(
            "weir_connections_refused_total", "Connections closed at once.", ("listener", "reason")
        )
        self._faults = metrics.counter(
            "weir_connection_faults_total", "Connections that ended by an exception.", ("listener",)
        )

    @property
    def connections(self) -> int:
        return len(self._live)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until drained (returns) or cancelled (every connection is cut). Says `started` when accepting.

        Raises LifespanError when the app does not start, OSError when accepting fails for good.
        """
        async with trio.open_nursery() as nursery:
            if self._lifespan:
                await nursery.start(Lifespan(self._app, self._name, self._state).run)
            await self._serve_connections(task_status)
            nursery.cancel_scope.cancel()  # the lifespan's: it shuts the app down

    async def drain(self, timeout: float, linger: float = 0.0) -> bool:
        """Accept no more, close idle connections, let requests end within *timeout* seconds, then cut the rest.

        With *linger*, for so many seconds (half of *timeout* at most) an idle connection may bring one more request,
        whose answer says that it was the last: a client that sent it at this moment would find the connection reset.
        Returns whether nothing had to be cut.
        """
        end = trio.current_time() + timeout
        self._lingering = linger > 0
        await self._context.terminated.set()
        self._accepting.cancel()
        for sock in self._sockets:
            sock.close()
        if self._lingering:
            for connection in tuple(self._live):
                connection.close_after_next()
            with trio.move_on_after(min(linger, timeout / 2)):
                await self._wait_until_empty()
            self._lingering = False
        for connection in tuple(self._live):
            connection.close_if_idle()
        with trio.move_on_at(end):
            await self._wait_until_empty()
        cut = tuple(self._live)
        for connection in cut:
            connection.abort()
        if cut:
            log.warning("connections were cut at the end of the drain", listener=self._name, connections=len(cut))
            with trio.move_on_after(_ABORT_GRACE_S):
                await self._wait_until_empty()
        return not cut

    async def _serve_connections(self, task_status: trio.TaskStatus[None]) -> None:
        sockets = [sock for sock in self._sockets if sock.fileno() >= 0]
        if not sockets:  # a restart after the drain
            task_status.started()
            return
        async with trio.open_nursery() as connections:
            connections.start_soon(self._sweep)
            try:
                with self._accepting:
                    async with trio.open_nursery() as acceptors:
                        for sock in sockets:
                            acceptors.start_soon(self._accept, sock, connections)
                        task_status.started()
                await self._wait_until_empty()
                connections.cancel_scope.cancel()
            except BaseException:
                # Cancellation alone would wait for sends, which are shielded from it.
                for connection in tuple(self._live):
                    connection.abort()
                raise

    async def _accept(self, listener: socket.socket, connections: trio.Nursery) -> None:
        """Take several at a wake-up: one at each turn of a busy loop would leave newcomers waiting for seconds.

        Raises OSError when accepting fails for good.
        """
        while True:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(_ACCEPTS_A_TURN):
                try:
                    accepted, _address = listener.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    break
                except OSError as error:
                    if error.errno not in _NO_ROOM:
                        raise
                    log.warning("no connection can be accepted for want of files or memory", listener=self._name)
                    await trio.sleep(_NO_ROOM_PAUSE_S)
                    break
                accepted.setblocking(False)
                connections.start_soon(self._connect, trio.SocketStream(trio.socket.from_stdlib_socket(accepted)))

    async def _sweep(self) -> None:
        """Close what has been idle for too long: one timer for all connections, not one for each."""
        limits = self._limits.connection
        every = min(_MAX_SWEEP_S, limits.keep_alive_timeout / 4, limits.header_timeout / 4)
        while True:
            await trio.sleep(every)
            now = trio.current_time()
            for connection in tuple(self._live):
                if isinstance(connection, Http1Connection):
                    connection.sweep(now)

    async def _connect(self, stream: trio.SocketStream) -> None:
        address = _peer(stream)
        reason = self._over_cap(address)
        if reason:
            self._refused.inc(self._name, reason)
            stream.socket.close()
            return
        self._opened.inc(self._name)
        self._per_address[address] += 1
        self._accepted += 1
        try:
            await self._converse(stream)
        except BaseException as error:
            self._fence(error)
        finally:
            stream.socket.close()
            self._accepted -= 1
            self._per_address[address] -= 1
            if not self._per_address[address]:
                del self._per_address[address]
            self._closed.inc(self._name)

    def _fence(self, error: BaseException) -> None:
        """Nothing that happens on one connection ends the others; raises Cancelled, and what ends the program."""
        cancelled, rest = _without_cancelled(error)
        if rest is not None:
            if not isinstance(rest, Exception):
                raise error
            self._faults.inc(self._name)
            log.error("a connection ended by a fault", exc_info=rest)
        if cancelled is not None:
            raise cancelled from None

    async def _converse(self, accepted: trio.SocketStream) -> None:
        limits = self._limits.connection
        sock = accepted.socket
        try:
            client = parse_socket_addr(sock.family, sock.getpeername())
            server = parse_socket_addr(sock.family, sock.getsockname())
        except OSError:
            return  # gone before it was greeted
        context = self._tls.current
        ends = Ends(client, server, context is not None)
        stream: Stream = accepted
        h2 = False
        if context is not None:
            stream = trio.SSLStream(accepted, context, server_side=True, https_compatible=True)
            if not await _handshake(stream, limits.handshake_timeout):
                return
            h2 = stream.selected_alpn_protocol() == "h2"
        handover: Handover | None = Handover(b"")
        if not h2:
            handover = await self._http1(stream, ends)
        if handover is not None:
            await self._hypercorn(stream, ends, handover, h2)

    async def _http1(self, stream: Stream, ends: Ends) -> Handover | None:
        limits = self._limits.connection
        wrap = PlainTransport if isinstance(stream, trio.SocketStream) else TlsTransport
        transport = wrap(stream, limits.write_timeout)  # type: ignore[arg-type]
        connection = Http1Connection(
            transport, ends, self._serve_one, self._takes_upgrade, limits, self._heads, self._log, self._refuse
        )
        if self._context.terminated.is_set():
            connection.closing = True
        with self._kept(connection):
            return await connection.run()

    async def _hypercorn(self, stream: Stream, ends: Ends, handover: Handover, h2: bool) -> None:
        h2 = h2 or handover.data.startswith(b"PRI ")
        connection = HypercornConnection(
            ASGIWrapper(self._app),  # type: ignore[arg-type]
            self._h2_config if h2 else self._websocket_config,
            self._context,
            self._state,
            Replay(stream, handover.data),
            ends,
            h2=h2,
            limits=self._limits.connection,
        )
        with self._kept(connection):
            await connection.run()

    @contextmanager
    def _kept(self, connection: Connection) -> Iterator[None]:
        """Among those that a drain knows of."""
        self._live.add(connection)
        try:
            yield
        finally:
            self._live.discard(connection)
            self._changed.set()
            self._changed = trio.Event()

    def _over_cap(self, address: str) -> str:
        if self._context.terminated.is_set() and not self._lingering:
            return "draining"
        if self._accepted >= self._limits.max_connections:  # those that have not shaken hands yet, too
            return "total"
        if address != LOCAL and self._per_address[address] >= self._limits.max_connections_per_address:
            return "address"
        return ""

    async def _wait_until_empty(self) -> None:
        while self._live:
            await self._changed.wait()


def _peer(stream: trio.SocketStream) -> str:
    try:
        name = stream.socket.getpeername()
    except OSError:
        return LOCAL
    return normalised(name[0]) if stream.socket.family in (socket.AF_INET, socket.AF_INET6) else LOCAL


async def _handshake(stream: trio.SSLStream[trio.SocketStream], timeout: float) -> bool:
    """Whether the client greeted us as TLS wants it, in time."""
    try:
        with trio.fail_after(timeout):
            await stream.do_handshake()
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
        return False
    return True


def _without_cancelled(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """The part of *error* that is cancellation, and the part that is not."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)
    return (error, None) if isinstance(error, trio.Cancelled) else (None, error)
