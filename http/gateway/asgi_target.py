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
from gateway.asgi_types import App, Message, Scope
from gateway.forwarding import request_headers, response_headers
from gateway.lifespan import Lifespan
from gateway.problem import ProblemError
from gateway.request import Headers, Request, Response

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
    """Calls the application in the request's task; request and response are buffered.

    The route's prefix is the app's `root_path`; `path` is the whole decoded path, as the specification wants
    it. An app that raises, or breaks the protocol, is a 500 of this request alone.
    """

    audited = True

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def handle(self, request: Request, resolved: Resolved) -> Response:
        call = _Call(request.body)
        try:
            await self._app.app(self._scope(request, resolved), call.receive, call.send)
            status, headers, body = call.result()
        except (Exception, SystemExit) as error:  # its exit is not ours
            log.exception("an application failed", app=self._app.name, request_id=request.id)
            raise ProblemError(500, "the application behind this path failed") from error
        head = request.method == "HEAD"
        return Response(status, response_headers(headers, head=head), b"" if head else body)

    def _scope(self, request: Request, resolved: Resolved) -> Scope:
        host, _, port = (request.header(b"host") or b"").decode("latin-1").rpartition(":")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
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
        if request.body:
            headers.append((b"content-length", b"%d" % len(request.body)))
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


class _Call:
    """Both ends of one call. After the body, `receive` waits until the response is complete, then disconnects."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._complete = trio.Event()
        self._status: int | None = None
        self._headers: Headers = []
        self._parts: list[bytes] = []

    async def receive(self) -> Message:
        if self._body is not None:
            await trio.lowlevel.checkpoint()
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._complete.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        match message["type"]:
            case "http.response.start" if self._status is None:
                self._headers = _checked(message.get("headers", ()))
                self._status = _final(int(message["status"]))
            case "http.response.body" if self._status is not None and not self._complete.is_set():
                self._parts.append(bytes(message.get("body", b"")))
                if not message.get("more_body", False):
                    self._complete.set()
            case other:
                raise RuntimeError(f"the application sent {other!r} out of turn")

    def result(self) -> tuple[int, Headers, bytes]:
        if self._status is None or not self._complete.is_set():
            raise RuntimeError("the application returned without a complete response")
        return self._status, self._headers, b"".join(self._parts)
