"""The operator's HTTP API and pages, a quart-trio app. Served on the admin listener and, for the command
line, on the control socket (whose file mode is its access control: `trusted`)."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial, wraps
from http import HTTPStatus
from typing import Any, Protocol

import msgspec
from quart import Response, render_template, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from gateway.admin import exposition
from gateway.admin.access import AdminToken, host_matches
from gateway.admin.operations import Caller, OperationError
from gateway.admin.readiness import Readiness
from gateway.admin.readings import Reading
from gateway.admin.streaming import MEDIA_TYPE, streamed

Handler = Callable[..., Awaitable[Response]]


class Control(Protocol):
    """What the app may see and do of the running system."""

    async def readiness(self) -> Readiness: ...
    async def snapshot(self) -> dict[str, Any]: ...
    async def crash(self, id: str) -> None:
        """Raises LookupError."""
        ...

    async def roll(self) -> int:
        """Replace every worker, one after the other; how many. Raises RollError."""
        ...

    async def readings(self) -> Sequence[Reading]: ...
    def openapi(self) -> dict[str, Any]: ...


class RollError(Exception):
    """The workers were not all replaced; the message says why."""


def json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, content_type="application/json")


def problem(status: int, detail: str, **headers: str) -> Response:
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    response = Response(msgspec.json.encode(body), status, headers, content_type="application/problem+json")
    response.headers["Cache-Control"] = "no-store"
    return response


def create_app(
    control: Control,
    operations: Caller,
    token: AdminToken,
    *,
    bind: str,
    allow_kill: bool,
    trusted: bool = False,
) -> QuartTrio:
    """Build the app. *trusted*: whoever reaches it may do everything (the control socket)."""
    app = QuartTrio(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = 1024 * 1024

    def protected(handler: Handler) -> Handler:
        """A matching Host, then the operator's token."""

        @wraps(handler)
        async def guarded(**arguments: Any) -> Response:
            if not trusted:
                if not host_matches(request.headers.get("Host"), bind):
                    return problem(421, f"this listener answers for {bind} alone; ask it by that name")
                if not token.matches(request.headers.get("Authorization")):
                    return await refused()
            return await handler(**arguments)

        return guarded

    async def refused() -> Response:
        if "text/html" in request.headers.get("Accept", ""):
            page = Response(await render_template("sign_in.html"), 401, content_type="text/html; charset=utf-8")
            page.headers["WWW-Authenticate"] = 'Bearer realm="weir admin"'
            return secured(page)
        return problem(
            401,
            "send `Authorization: Bearer` with the content of admin.token in the data directory",
            **{"WWW-Authenticate": 'Bearer realm="weir admin"'},
        )

    def secured(page: Response) -> Response:
        """Pages hold no foreign content and are never framed."""
        page.headers["Content-Security-Policy"] = (
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
            "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        )
        page.headers["X-Content-Type-Options"] = "nosniff"
        page.headers["Referrer-Policy"] = "no-referrer"
        page.headers["Cache-Control"] = "no-store"
        return page

    async def html(template: str, **context: Any) -> Response:
        return secured(Response(await render_template(template, **context), content_type="text/html; charset=utf-8"))

    @app.get("/healthz")
    async def healthz() -> Response:
        return json({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:
        state = await control.readiness()
        status = "ready" if state.ready else "not ready"
        if state.degraded:
            status = "degraded"
        return json({"status": status, "reasons": state.reasons}, 200 if state.ready else 503)

    @app.get("/metrics")
    async def scrape() -> Response:
        return Response(exposition.render(await control.readings()), content_type=exposition.CONTENT_TYPE)

    @app.get("/tree")
    @protected
    async def tree() -> Response:
        return json(await control.snapshot())

    @app.get("/readings")
    @protected
    async def readings() -> Response:
        return json(await control.readings())

    @app.post("/workers/roll")
    @protected
    async def roll() -> Response:
        try:
            return json({"rolled": await control.roll()})
        except RollError as error:
            return problem(409, str(error))

    @app.post("/tree/<path:id>/kill")
    @protected
    async def kill(id: str) -> Response:
        if not allow_kill:
            return problem(403, "killing actors is off; set admin.allow_kill = true for a game day")
        try:
            await control.crash(id)
        except LookupError as error:
            return problem(404, str(error))
        return json({"id": id, "status": "it crashes on its next message"}, 202)

    @app.post("/operations/<name>")
    @protected
    async def operate(name: str) -> Response:
        try:
            arguments = msgspec.json.decode(await request.get_data(), type=dict[str, Any])
            if MEDIA_TYPE in request.headers.get("Accept", ""):
                return streamed(partial(operations.call, name, arguments))
            return json(await operations.call(name, arguments))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return problem(400, f"the body must be a JSON object of the operation's arguments: {error}")
        except OperationError as error:
            return problem(400, str(error))

    @app.get("/openapi.json")
    @protected
    async def openapi_document() -> Response:
        return json(control.openapi())

    @app.get("/")
    @protected
    async def tree_page() -> Response:
        return await html("tree.html", tree=await control.snapshot(), readiness=await control.readiness())

    @app.get("/openapi")
    @protected
    async def openapi_page() -> Response:
        return await html("openapi.html", api=control.openapi())

    @app.errorhandler(404)
    async def not_found(_error: Exception) -> Response:
        return problem(404, f"there is no {request.path} here; pages are / and /openapi")

    @app.errorhandler(405)
    async def wrong_method(error: MethodNotAllowed) -> Response:
        possible = ", ".join(sorted(error.valid_methods or ()))
        return problem(405, f"{request.path} does not take {request.method}; possible: {possible}", Allow=possible)

    @app.errorhandler(HTTPException)
    async def refused_by_quart(error: HTTPException) -> Response:
        return problem(error.code or 500, error.description or "the request was refused")

    @app.errorhandler(500)
    async def failed(_error: Exception) -> Response:
        return problem(500, "the server failed; its log says how")

    return app
