"""Hypercorn's configuration and log, as our server wants them: structlog, `server: weir`, the date once a second."""

import time
from collections.abc import Callable
from typing import Any
from wsgiref.handlers import format_date_time

import structlog
from hypercorn.config import Config
from hypercorn.logging import Logger
from hypercorn.typing import ResponseSummary, WWWScope

from gateway.http1.connection import Ends
from gateway.http1.exchange import Exchange
from gateway.request import Headers

access = structlog.get_logger("gateway.access")
server = structlog.get_logger("gateway.server")


class StructlogLogger(Logger):
    """Writes one `request` event a request, and Hypercorn's own messages. Neither queries nor headers, which
    may hold secrets; the request's id alone, which leads to its audit."""

    async def access(self, request: WWWScope, response: ResponseSummary | None, request_time: float) -> None:
        if response is None:
            # The client closed; often with the whole answer in hand, before Hypercorn noticed that it was whole.
            # What the app answers is logged when it has answered, so this is no second line about the request.
            access.debug("the client left", path=request["raw_path"].decode("latin-1"))
            return
        client = request.get("client")
        access.info(
            "request",
            method=request.get("method", "WEBSOCKET"),
            path=request["raw_path"].decode("latin-1"),
            status=response["status"],
            seconds=round(request_time, 6),
            client=client[0] if client else "",
            request_id=next(
                (value.decode("latin-1") for name, value in response["headers"] if name == b"x-request-id"), ""
            ),
        )

    async def critical(self, message: str, *args: Any, **kwargs: Any) -> None:
        server.critical(message, *args, **kwargs)

    async def error(self, message: str, *args: Any, **kwargs: Any) -> None:
        server.error(message, *args, **kwargs)

    async def warning(self, message: str, *args: Any, **kwargs: Any) -> None:
        server.warning(message, *args, **kwargs)

    async def info(self, message: str, *args: Any, **kwargs: Any) -> None:
        server.info(message, *args, **kwargs)

    async def debug(self, message: str, *args: Any, **kwargs: Any) -> None:
        server.debug(message, *args, **kwargs)

    async def exception(self, message: str, *args: Any, **kwargs: Any) -> None:
        server.exception(message, *args, **kwargs)


class SilentAccess(StructlogLogger):
    """Everything but the line a request: it costs a tenth of the throughput."""

    async def access(self, request: WWWScope, response: ResponseSummary | None, request_time: float) -> None:
        return


class ServerConfig(Config):
    """*clock*: Unix seconds, for the Date header. *max_requests*: of one connection. *extra*: more fields of every
    response."""

    def __init__(
        self,
        *,
        log_requests: bool,
        max_requests: int = 10_000,
        extra: Headers | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.errorlog = None
        self.accesslog = None
        self.logger_class = StructlogLogger if log_requests else SilentAccess
        self.keep_alive_max_requests = max_requests
        self._extra = extra or []
        self._clock = clock
        self._second = 0
        self._headers: list[tuple[bytes, bytes]] = []

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        now = self._clock()
        if int(now) != self._second:
            self._second = int(now)
            self._headers = [(b"date", format_date_time(now).encode("ascii")), (b"server", b"weir"), *self._extra]
        return list(self._headers)


def log_exchange(exchange: Exchange, ends: Ends, seconds: float) -> None:
    """The `request` event of one request on an HTTP/1.1 connection of ours; `cut`: its client did not get all of the
    answer. What could not be read has neither method nor path."""
    message = exchange.message
    cut = {"cut": True} if exchange.is_cut else {}
    access.info(
        "request",
        method=message.method,
        path=message.target.partition(b"?")[0].decode("latin-1"),
        status=exchange.status,
        seconds=round(seconds, 6),
        client=ends.client[0] if ends.client else "",
        request_id=exchange.request_id,
        **cut,
    )
