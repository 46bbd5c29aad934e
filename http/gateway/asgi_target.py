"""The target kind `asgi:package.module:app`: an ASGI application in this process, on trio."""

import importlib
import re
from collections.abc import Iterable
from typing import Any, NoReturn
from urllib.parse import unquote

import structlog
import trio

from actors.router.messages import Resolved
from actors.runtime import Actor
from gateway.asgi_types import App, Message, Receive, Scope, Send
from gateway.forwarding import request_headers, response_headers
from gateway.lifespan import Lifespan
from gateway.problem import ProblemError
from gateway.request import ClientGone, Headers, Request, Response

log = structlog.get_logger(__name__)


_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")  # RFC 9110 §5.1
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


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
        call = Call(request)
        try:
            await self._app.app(self._scope(request, resolved), call.receive, call.send)
            return call.result()
        except ClientGone:
            raise
        except (Exception, SystemExit) as error:  # its exit is not ours
            if _is_gone(error):
                raise ClientGone from error
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


def _final(status: int) -> int:
    if not 200 <= status <= 599:
        raise ValueError(f"the application sent the status {status}")
    return status


def _checked(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers an application sent. Raises ValueError for what would break the framing of the answer."""
    checked = [(bytes(name).lower(), bytes(value)) for name, value in headers]
    for name, value in checked:
        if _NAME.fullmatch(name) is None or _CONTROL.search(value) is not None:
            raise ValueError(f"the application sent an illegal header: {name!r}")
    return checked


def _is_gone(error: BaseException) -> bool:
    """Whether all that an application raised says that its client has left."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_gone, error.exceptions))
    return isinstance(error, ClientGone)


class Call:
    """Both ends of one call of an application.

    After the body, `receive` waits until the response is complete or the client has gone, then disconnects.
    """

    def __init__(self, request: Request) -> None:
        self._head_only = request.method == "HEAD"
        self._wire = request.wire
        self._body: bytes | None = request.body
        """What is still to be received, without a wire; None: the end of the body was told."""
        self._listening = trio.CancelScope()
        self._response: Response | None = None
        self._sent = False
        self._complete = False

    async def receive(self) -> Message:
        if self._body is not None:
            return await self._receive_body()
        with self._listening:
            if self._wire is None:
                await trio.sleep_forever()
            else:
                await self._wire.wait_closed()
        return {"type": "http.disconnect"}

    async def _receive_body(self) -> Message:
        if self._wire is None or not self._wire.has_body:
            await trio.lowlevel.checkpoint()
            part, self._body = self._body or b"", None
            return {"type": "http.request", "body": part, "more_body": False}
        try:
            part = await self._wire.receive()
        except ClientGone:
            self._body = None
            return {"type": "http.disconnect"}
        if not part:
            self._body = None
        return {"type": "http.request", "body": part, "more_body": bool(part)}

    async def send(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start" if self._response is None:
                headers = _checked(message.get("headers", ()))
                kept = response_headers(headers, head=True)
                self._response = Response(_final(int(message["status"])), kept)
                if not any(name == b"content-length" for name, _ in kept):
                    await self._start()  # of unknown length: nobody knows when the first part comes
            case "http.response.body" if self._response is not None and not self._complete:
                await self._send_body(self._response, bytes(message.get("body", b"")), message.get("more_body", False))
            case other:
                raise RuntimeError(f"the application sent {other!r} out of turn")
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _send_body(self, response: Response, part: bytes, more: bool) -> None:
        if more and not self._sent:
            await self._start()
        if not self._sent:
            response.body += part
        elif part and not self._head_only and self._wire is not None:
            await self._wire.write(part)
        if not more:
            self._complete = True
            self._listening.cancel()

    async def _start(self) -> None:
        """Begin to stream, if there is somewhere to stream to."""
        if self._wire is not None and self._response is not None and self._response.status not in (204, 304):
            self._sent = True
            await self._wire.start(self._response)

    def result(self) -> Response:
        """The answer. Raises RuntimeError when the application returned without having completed it."""
        response = self._response
        if response is None or not self._complete:
            raise RuntimeError("the application returned without a complete response")
        if self._sent:
            return Response(response.status, sent=True)
        if self._head_only:
            response.body = b""
        else:
            response.headers = [item for item in response.headers if item[0] != b"content-length"]
        return response
