"""One upstream as the data path sees it: its connections, its health, what it has in hand.

It outlives the incarnations of the actor that looks after it; a request asks no actor for it.
"""

import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import structlog
import trio

from actors.breaker import Health, HealthPolicy
from actors.metrics import Labels, Metrics
from gateway.proxy.breaker import admit
from gateway.proxy.limits import ProxyLimits
from gateway.proxy.metrics import Outcome, UpstreamMetrics
from gateway.proxy.reader import Reader
from gateway.proxy.transport import Transport, connect

log = structlog.get_logger(__name__)


class Unreached(Exception):
    """No connection to this upstream: the request was not sent."""


class Busy(Exception):
    """As many connections, and requests that wait for one, as there may be."""


class Connection:
    """One connection, in the hands of one request at a time. `used`: it has carried an answer before."""

    __slots__ = ("idle_since", "reader", "transport", "used")

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.reader = Reader()
        self.used = False
        self.idle_since = 0.0


class Origin:
    """The server at *url* (`scheme://host[:port]`, no path). *tls* makes the context of an https one.

    What `acquire` gives must go to `release` or `discard`, both of which never wait.
    """

    def __init__(
        self,
        url: str,
        limits: ProxyLimits,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        policy: HealthPolicy | None = None,
        metrics: UpstreamMetrics | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"an upstream is http://host:port or https://host:port, got {url!r}")
        self.url = url
        self.host = parts.hostname
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.authority = parts.netloc.encode("ascii")
        self.limits = limits
        self.check_path = ""
        """Asked for by the active checks; empty: there are none."""
        self.health = Health(HealthPolicy() if policy is None else policy)
        self.outstanding = 0
        self.requests = 0
        self.failed = 0
        self.last_error = ""
        self._metrics = metrics or UpstreamMetrics(Metrics())
        self._tls = tls() if parts.scheme == "https" else None
        self.keeps = True
        """Whether connections are kept for the next request. Not so while nobody looks after them."""
        self._open = 0
        self._idle: deque[Connection] = deque()
        self._waiting = 0
        self._free = trio.lowlevel.ParkingLot()

    # Connections.

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """An idle connection, the one used last, or a new one. *fresh*: a new one whatever there is.

        Raises Unreached, Busy.
        """
        if not self._waiting and not fresh and (kept := self._take_idle()) is not None:
            return kept
        if fresh and self._open >= self.limits.max_connections and self._idle:
            self.discard(self._idle.popleft())
        limits = self.limits
        match admit(self._open, self._waiting, limits.max_connections, limits.max_pending):
            case "connect":
                return await self._connect()
            case "wait":
                return await self._wait()
        raise Busy

    def _take_idle(self) -> Connection | None:
        oldest = trio.current_time() - self.limits.idle_connection
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since >= oldest and not connection.transport.stale():
                return connection
            self.discard(connection)
        return None

    async def _wait(self) -> Connection:
        self._waiting += 1
        try:
            with trio.move_on_after(self.limits.pending):
                while True:
                    await self._free.park()
                    if self._idle or self._open < self.limits.max_connections:
                        break
            if not self._idle and self._open >= self.limits.max_connections:
                raise Busy
        finally:
            self._waiting -= 1
        return self._take_idle() or await self._connect()

    async def _connect(self) -> Connection:
        self._open += 1
        try:
            return await self.connect()
        except BaseException:
            self._gone()
            raise

    async def connect(self) -> Connection:
        """A connection beside the pool. Raises Unreached."""
        try:
            with trio.fail_after(self.limits.connect):
                return Connection(await connect(self.host, self.port, self._tls, self.limits.write))
        except (OSError, ssl.SSLError, trio.TooSlowError) as error:
            raise Unreached(str(error) or "it did not take the connection in time") from error

    def release(self, connection: Connection) -> None:
        """Its answer was read to the end; keep it if it can be."""
        if self._keeps(connection):
            connection.used = True
            connection.idle_since = trio.current_time()
            self._idle.append(connection)
            self._free.unpark()
        else:
            self.discard(connection)

    def _keeps(self, connection: Connection) -> bool:
        if not self.keeps or not connection.reader.reusable:
            return False
        return len(self._idle) < self.limits.max_idle or self._waiting > 0

    def discard(self, connection: Connection) -> None:
        connection.transport.close()
        self._gone()

    def _gone(self) -> None:
        self._open -= 1
        self._free.unpark()

    def reap(self, older_than: float) -> None:
        """Close the connections that are idle since before *older_than* (a time), or that the peer closed."""
        for connection in [*self._idle]:
            if connection.idle_since < older_than or connection.transport.stale():
                self._idle.remove(connection)
                self.discard(connection)

    def close_idle(self) -> None:
        while self._idle:
            self.discard(self._idle.pop())

    # Health.

    def ended(self, outcome: Outcome) -> None:
        """A try of a request is over."""
        self.outstanding -= 1
        self._metrics.requests.inc(self.url, outcome)

    def succeeded(self) -> None:
        if self.health.succeeded():
            log.info("an upstream is back", upstream=self.url)

    def failure(self, why: str, *, probe: bool) -> None:
        self.failed += 1
        self.last_error = why
        if self.health.failed(trio.current_time(), probe=probe):
            self._metrics.ejections.inc(self.url)
            log.warning(
                "an upstream is ejected",
                upstream=self.url,
                problem=why,
                seconds=self.health.retry_after(trio.current_time()),
            )

    def describe(self) -> dict[str, Any]:
        """Its state, ready for JSON."""
        now = trio.current_time()
        ejected = self.health.ejected_until is not None
        return {
            "url": self.url,
            "health": "ejected" if ejected else "healthy",
            "ejected_for": self.health.retry_after(now) if ejected else None,
            "breaker": "open" if self._open >= self.limits.max_connections and not self._idle else "closed",
            "consecutive_failures": self.health.failures,
            "outstanding": self.outstanding,
            "connections": self._open,
            "idle": len(self._idle),
            "pending": self._waiting,
            "requests": self.requests,
            "failed": self.failed,
            "last_error": self.last_error or None,
        }


class Origins:
    """Every upstream of the process, by URL, each made on first use: routes that name the same one share it."""

    def __init__(
        self,
        limits: ProxyLimits,
        checks: Mapping[str, str] | None = None,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        metrics: Metrics | None = None,
    ) -> None:
        self.limits = limits
        self._tls = tls
        self._checks = dict(checks or {})
        self._by_url: dict[str, Origin] = {}
        self._context: ssl.SSLContext | None = None
        metrics = metrics or Metrics()
        self._metrics = UpstreamMetrics(metrics)
        metrics.gauge(
            "weir_upstream_in_hand", "Requests that an upstream has in hand.", ("upstream",), self._outstanding
        )

    def _outstanding(self) -> dict[Labels, float]:
        return {(url,): origin.outstanding for url, origin in self._by_url.items()}

    @property
    def checks(self) -> Mapping[str, str]:
        """The path of each upstream's active checks, by URL. A reload replaces it."""
        return self._checks

    @checks.setter
    def checks(self, checks: Mapping[str, str]) -> None:
        self._checks = dict(checks)
        for url, origin in self._by_url.items():
            origin.check_path = self._checks.get(url, "")

    def of(self, url: str) -> Origin:
        origin = self._by_url.get(url)
        if origin is None:
            origin = self._by_url[url] = Origin(url, self.limits, self._shared_context, metrics=self._metrics)
            origin.check_path = self._checks.get(url, "")
        return origin

    def _shared_context(self) -> ssl.SSLContext:
        """Made once: it holds all the certificates that are trusted."""
        if self._context is None:
            self._context = self._tls()
        return self._context

    def close(self) -> None:
        """Close what is idle; what is in use ends with its requests."""
        for origin in self._by_url.values():
            origin.close_idle()
