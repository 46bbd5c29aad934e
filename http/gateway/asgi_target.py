"""The target kind `asgi:package.module:app`: an ASGI application in this process, on trio."""

import importlib
from functools import partial
from typing import Any, NoReturn
from urllib.parse import unquote

import structlog
import trio

from actors.router.messages import Resolved
from actors.runtime import Actor
from gateway.asgi_call import Call, reason
from gateway.asgi_types import App, Receive, Scope, Send
from gateway.forwarding import request_headers, response_headers
from gateway.lifespan import Lifespan
from gateway.problem import ProblemError
from gateway.request import ClientGone, Headers, Request, Response

log = structlog.get_logger(__name__)


class TargetError(Exception):
    """A target that cannot be: a configuration error. The message names the target, the fault and the cure."""


class AsgiApp:
    """One application and the state that its lifespan made. Outlives the incarnations of its `AsgiLifespan`."""

    def __init__(self, name: str, app: App) -> None:
        self.name = name
        """As in the configuration: `asgi:package.module:app`."""
        self.app = app
        self.state: dict[str, Any] = {}


def load_app(target: str) -> AsgiApp:
    """Import the application that *target* (`asgi:package.module:app`) names. Raises TargetError."""
    module_name, _, attribute = target.removeprefix("asgi:").partition(":")
    if not module_name or not attribute:
        raise TargetError(f"{target}: write it as asgi:package.module:app")
    try:
        app = importlib.import_module(module_name)
        for part in attribute.split("."):
            app = getattr(app, part)
    except AttributeError:
        raise TargetError(f"{target}: the module {module_name} has no {attribute}") from None
    except (Exception, SystemExit) as error:  # the module's own code runs here
        raise TargetError(f"{target}: {module_name} cannot be imported: {error!r}") from error
    if not callable(app):
        raise TargetError(f"{target}: it is no ASGI application: {type(app).__name__} cannot be called")
    return AsgiApp(target, app)


class AsgiLifespan(Actor[NoReturn]):
    """Keeps the lifespan of one application: ready when it has started, and restarted when that fails.

    It understands no message. The child's `start_timeout` and `shutdown` should be a little above those here.
    """

    def __init__(self, app: AsgiApp, *, startup_timeout: float = 4.0, shutdown_timeout: float = 4.0) -> None:
        self._app = app
        self._timeouts = (startup_timeout, shutdown_timeout)

    async def on_start(self) -> None:
        app = self._app
        app.state.clear()
        startup, shutdown = self._timeouts
        lifespan = Lifespan(app.app, app.name, app.state, startup_timeout=startup, shutdown_timeout=shutdown)
        ready = trio.Event()

        async def live() -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(lifespan.run)
                ready.set()

        self.spawn(live)
        await ready.wait()


class AsgiTarget:
    """Calls the application in the request's task, without a task or channel of its own.

    An answer that has a `content-length` and comes in one part is passed on as it is; any other is streamed as the
    application sends it. The route's prefix is the app's `root_path`; `path` is the whole decoded path, as the
    specification wants it. An app that raises, or breaks the protocol, is a 500 of this request alone, or the end
    of its answer when that was begun.
    """

    audited = True
    streams = True

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def handle(self, request: Request, resolved: Resolved) -> Response:
        call = Call(request.method, request.wire, request.body, partial(response_headers, head=True))
        try:
            await self._app.app(self._scope(request, resolved), call.receive, call.send)
            return call.result()
        except (Exception, SystemExit) as error:  # its exit is not ours
            if (clients := reason(error)) is not None:
                raise clients from None
            if call.client_gone:
                raise ClientGone from None
            log.exception("an application failed", app=self._app.name, request_id=request.id)
            raise ProblemError(500, "the application behind this path failed") from error

    async def websocket(self, request: Request, resolved: Resolved, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application have the WebSocket that *request* asks for, through the server's *receive* and *send*."""
        ours = self._scope(request, resolved)
        del ours["method"]
        ours.update(
            type="websocket",
            scheme="wss" if request.scheme == "https" else "ws",
            subprotocols=scope["subprotocols"],
            extensions=scope.get("extensions", {}),
        )
        await self._app.app(ours, receive, send)

    def _scope(self, request: Request, resolved: Resolved) -> Scope:
        host, _, port = (request.header(b"host") or b"").decode("latin-1").rpartition(":")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.http_version,
            "method": request.method,
            "scheme": request.scheme,
            "path": unquote(request.path),
            "raw_path": request.path.encode("ascii"),
            "query_string": request.query,
            "root_path": resolved.route.prefix.rstrip("/"),
            "headers": self._headers(request, resolved),
            "client": (request.client, 0),
            "server": (host, int(port)) if host and port.isdigit() else None,
            "state": self._app.state.copy(),
        }

    def _headers(self, request: Request, resolved: Resolved) -> Headers:
        headers = request_headers(request, consumed_authorization=resolved.route.auth != "none")
        wire = request.wire
        length = len(request.body) if wire is None else wire.length
        if length:
            headers.append((b"content-length", b"%d" % length))
        elif wire is not None and wire.has_body:
            headers.append((b"transfer-encoding", b"chunked"))
        return headers
