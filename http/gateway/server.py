"""Serves an ASGI app on sockets that somebody else opened, with Hypercorn's trio pieces.

The place of `hypercorn.trio.run.worker_serve`, which opens its own sockets, hard-codes its connection class
and is ended by one connection's exception. No TLS here: it ends at the load balancer in front.
"""

import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.worker_context import WorkerContext

from actors.metrics import Metrics
from gateway.access_log import ServerConfig
from gateway.address import LOCAL, normalised
from gateway.asgi_types import App
from gateway.connection import Connection, ConnectionLimits
from gateway.lifespan import Lifespan

log = structlog.get_logger(__name__)

_ABORT_GRACE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """How many connections at once, in all and from one address (a load balancer counts as one)."""

    max_connections: int = 4096
    max_connections_per_address: int = 1024
    connection: ConnectionLimits = field(default_factory=ConnectionLimits)


class Server:
    """One app on some listening sockets. Use once: `serve` it, `drain` it.

    Args:
        name: of the listener, in metrics and logs.
        sockets: listening; `serve` leaves them open, `drain` closes them.
        lifespan: whether the app wants its lifespan run.
        log_requests: one line a request.
    """

    def __init__(
        self,
        name: str,
        app: App,
        sockets: Sequence[socket.socket],
        metrics: Metrics,
        limits: ServerLimits | None = None,
        *,
        lifespan: bool = False,
        log_requests: bool = True,
    ) -> None:
        self._name = name
        self._app = app
        self._sockets = sockets
        self._limits = limits or ServerLimits()
        self._lifespan = lifespan
        self._config = ServerConfig(log_requests=log_requests)
        self._context = WorkerContext(None)
        self._state: dict[str, Any] = {}
        self._accepting = trio.CancelScope()
        self._live: set[Connection] = set()
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

    async def drain(self, timeout: float) -> bool:
        """Accept no more, close idle connections, let requests end within *timeout* seconds, then cut the rest.

        Returns whether nothing had to be cut.
        """
        await self._context.terminated.set()
        self._accepting.cancel()
        for sock in self._sockets:
            sock.close()
        for connection in tuple(self._live):
            connection.close_if_idle()
        with trio.move_on_after(timeout):
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
        # trio closes the listeners it served, so it gets duplicates: a crash leaves the kernel's queue as it is.
        sockets = [sock.dup() for sock in self._sockets if sock.fileno() >= 0]
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in sockets]
        if not listeners:  # a restart after the drain
            task_status.started()
            return
        serve = partial(trio.serve_listeners, self._connect, listeners, task_status=_Started(task_status))
        async with trio.open_nursery() as connections:
            try:
                with self._accepting:
                    await serve(handler_nursery=connections)
                await self._wait_until_empty()
            except BaseException:
                # Cancellation alone would wait for sends, which are shielded from it.
                for connection in tuple(self._live):
                    connection.abort()
                raise

    async def _connect(self, stream: trio.SocketStream) -> None:
        address = _peer(stream)
        reason = self._over_cap(address)
        if reason:
            self._refused.inc(self._name, reason)
            return  # trio closes the stream
        connection = Connection(
            ASGIWrapper(self._app),  # type: ignore[arg-type]
            self._config,
            self._context,
            self._state,
            stream,
            limits=self._limits.connection,
            on_fault=partial(self._faults.inc, self._name),
        )
        self._opened.inc(self._name)
        self._live.add(connection)
        self._per_address[address] += 1
        try:
            await connection.run()
        finally:
            self._live.discard(connection)
            self._per_address[address] -= 1
            if not self._per_address[address]:
                del self._per_address[address]
            self._closed.inc(self._name)
            self._changed.set()
            self._changed = trio.Event()

    def _over_cap(self, address: str) -> str:
        if self._context.terminated.is_set():
            return "draining"
        if len(self._live) >= self._limits.max_connections:
            return "total"
        if address != LOCAL and self._per_address[address] >= self._limits.max_connections_per_address:
            return "address"
        return ""

    async def _wait_until_empty(self) -> None:
        while self._live:
            await self._changed.wait()


class _Started(trio.TaskStatus[Any]):
    """Passes `started` on without the listeners, which are nobody's business."""

    def __init__(self, outer: trio.TaskStatus[None]) -> None:
        self._outer = outer

    def started(self, value: Any = None) -> None:
        self._outer.started()


def _peer(stream: trio.SocketStream) -> str:
    try:
        name = stream.socket.getpeername()
    except OSError:
        return LOCAL
    return normalised(name[0]) if stream.socket.family in (socket.AF_INET, socket.AF_INET6) else LOCAL
