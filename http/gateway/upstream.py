"""The target kind `http(s)://…`: a proxied upstream, or several in turn."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import httpx
import structlog

from actors.router.messages import Resolved
from gateway.forwarding import request_headers, response_headers
from gateway.problem import ProblemError
from gateway.request import Request, Response

log = structlog.get_logger(__name__)

TIMEOUTS: Mapping[str, float] = {"connect": 2.0, "read": 30.0, "write": 10.0, "pool": 2.0}
"""Seconds. The request's own deadline, which is shorter by default, ends all of them."""


_AWAY = "the service behind this path cannot be reached"


class _Unreached(Exception):
    """No connection to this upstream: the request was not sent."""


def open_transport(*, max_connections: int = 256) -> httpx.AsyncHTTPTransport:
    """The connection pool that all upstreams share; close it with `aclose`.

    A transport and not an `httpx.AsyncClient`: a client keeps cookies, and would give one caller's to the
    next; it follows redirects, reads proxy settings from the environment and adds headers of its own.
    """
    limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections // 4)
    return httpx.AsyncHTTPTransport(limits=limits, retries=0, trust_env=False)


class UpstreamTarget:
    """Forwards to *urls* (`scheme://host[:port]`, no path), round robin.

    The path goes on as it is, prefix included, in its canonical form. Redirects are the caller's business.
    One that cannot be connected to passes its turn on. No other retries: a request that was sent may have been
    acted on. `max_response`: bytes of a body that are
    buffered before it is too large (502).
    """

    audited = True
    streams = False

    def __init__(
        self,
        urls: Sequence[str],
        transport: httpx.AsyncBaseTransport,
        *,
        timeouts: Mapping[str, float] = TIMEOUTS,
        max_response: int = 16 * 1024 * 1024,
    ) -> None:
        if not urls:
            raise ValueError("an upstream target needs at least one URL")
        self._urls = [httpx.URL(url) for url in urls]
        self._transport = transport
        self._timeouts = dict(timeouts)
        self._max_response = max_response
        self._turn = count()

    async def handle(self, request: Request, resolved: Resolved) -> Response:
        """Raises ProblemError: 504 when the upstream is too slow, 502 when it cannot be reached or understood.

        Cancelled: the upstream's connection is closed; what it does with the request is unknown.
        """
        first = next(self._turn)
        for attempt in range(len(self._urls)):
            url = self._urls[(first + attempt) % len(self._urls)]
            try:
                return await self._ask(url, request, resolved)
            except _Unreached:
                continue  # nothing was sent, so the next one may have it
        raise ProblemError(502, _AWAY)

    async def _ask(self, url: httpx.URL, request: Request, resolved: Resolved) -> Response:
        try:
            return await self._forward(url, request, resolved)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            log.warning("an upstream is away", upstream=str(url), request_id=request.id, error=repr(error))
            raise _Unreached from None
        except httpx.TimeoutException as error:
            log.warning("an upstream was too slow", upstream=str(url), request_id=request.id, error=repr(error))
            raise ProblemError(504, "the service behind this path did not answer in time") from None
        except (httpx.TransportError, httpx.StreamError) as error:
            log.warning("an upstream failed", upstream=str(url), request_id=request.id, error=repr(error))
            raise ProblemError(502, _AWAY) from None

    async def _forward(self, url: httpx.URL, request: Request, resolved: Resolved) -> Response:
        target = request.path.encode("ascii") + (b"?" + request.query if request.query else b"")
        # The target as bytes, beside the URL, so that no library normalises what was decided on once.
        extensions: dict[str, Any] = {"timeout": self._timeouts, "target": target}
        outgoing = httpx.Request(
            request.method,
            url,
            headers=request_headers(request, consumed_authorization=resolved.route.auth != "none"),
            content=request.body or None,
            extensions=extensions,
        )
        answer = await self._transport.handle_async_request(outgoing)
        try:
            body = await self._read(answer)
        finally:
            await answer.aclose()
        headers = [(name.lower(), value) for name, value in answer.headers.raw]
        return Response(answer.status_code, response_headers(headers, head=request.method == "HEAD"), body)

    async def _read(self, answer: httpx.Response) -> bytes:
        """The body as it was sent, compressed or not."""
        body = bytearray()
        too_large = False
        try:
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > self._max_response and not too_large:
                    too_large = True
                    # Leaving the loop would leave httpx's nested generators to the garbage collector, which
                    # cannot await; on a closed connection they end by themselves.
                    await answer.aclose()
        except (httpx.TransportError, httpx.StreamError):
            if not too_large:
                raise
        if too_large:
            raise ProblemError(502, f"the service behind this path sent more than {self._max_response} bytes")
        return bytes(body)
