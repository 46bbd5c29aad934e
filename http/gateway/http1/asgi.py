"""An ASGI application served on HTTP/1.1 connections. Source: the ASGI specification, HTTP & WebSocket 2.4."""

from typing import Any
from urllib.parse import unquote

import structlog

from gateway.asgi_call import Call, reason
from gateway.asgi_types import App, Scope
from gateway.http1.connection import Ends
from gateway.http1.exchange import Exchange
from gateway.http1.parser import split_target
from gateway.ids import new_id
from gateway.refusals import unreadable
from gateway.request import ClientGone, Headers

log = structlog.get_logger(__name__)

# Whoever frames the message writes them.
_FRAMING = frozenset((b"connection", b"keep-alive", b"transfer-encoding", b"date", b"server"))


class AsgiServe:
    """Serves *app*. *state*: what its lifespan made, copied for each request."""

    def __init__(self, app: App, state: dict[str, Any]) -> None:
        self._app = app
        self._state = state

    async def __call__(self, exchange: Exchange, ends: Ends) -> None:
        call = Call(exchange.message.method, exchange, b"", _passed)
        try:
            await self._app(self._scope(exchange, ends), call.receive, call.send)
            response = call.result()
        except (Exception, SystemExit) as error:  # its exit is not ours
            clients = ClientGone() if call.client_gone else reason(error)
            if isinstance(clients, ClientGone):
                raise clients from None
            if clients is None:
                log.exception("an application failed")
            if exchange.started:
                exchange.cut()
                return
            response = unreadable(500 if clients is None else clients.status, new_id())
        if not response.sent:
            await exchange.respond(response)

    def _scope(self, exchange: Exchange, ends: Ends) -> Scope:
        message = exchange.message
        host = next((value for name, value in message.headers if name == b"host"), None)
        path, query = split_target(message.target, host)
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": message.version,
            "method": message.method,
            "scheme": "https" if ends.tls else "http",
            "path": unquote(path) if b"%" in path else path.decode("latin-1"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": message.headers,
            "client": ends.client,
            "server": ends.server,
            "state": self._state.copy(),
            "extensions": {},
        }


def _passed(headers: Headers) -> Headers:
    return [item for item in headers if item[0] not in _FRAMING]


def takes_no_upgrade(exchange: Exchange) -> bool:
    """A WebSocket is handed over: Hypercorn speaks it."""
    return False
