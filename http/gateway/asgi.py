"""The public listener's app: `Request`s in, from HTTP/1.1 connections of ours or by ASGI (HTTP/2, WebSocket)."""

from collections.abc import Callable

import trio

from gateway import ids
from gateway.address import LOCAL, TrustedProxies, normalised
from gateway.asgi_types import App, Message, Receive, Scope, Send
from gateway.asgi_wire import AsgiWire
from gateway.http1.connection import Ends
from gateway.http1.exchange import Exchange
from gateway.http1.parser import split_target
from gateway.paths import PathError, canonical
from gateway.pipeline import Pipeline
from gateway.problem import ProblemError
from gateway.request import ClientGone, Headers, Request, Response
from gateway.server import NativeApp
from gateway.trace import traceparent
from gateway.websocket_admission import Admission, admit_websocket

_FORWARDED = (b"x-forwarded-", b"x_forwarded_", b"forwarded", b"x-real-ip")


class GatewayApp(NativeApp):
    """The app of the public listener.

    Args:
        max_body: bytes of a request's body, where its route does not say otherwise; more is a 413 problem.
        body_timeout, body_rate: seconds that a body may stand still, and the bytes a second that it must come with
            beyond that, over HTTP/2; then 408.
        write_timeout: seconds in which the client must take each 64 KiB of an answer, over HTTP/2.
        max_in_flight: requests at work at once, without those whose client is slow and those whose answer has begun;
            one more is a 503 problem. This is what keeps the others quick.

    A client that disconnects cancels nothing: what its request started is finished, and the answer dropped.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        proxies: TrustedProxies,
        *,
        max_body: int = 1024 * 1024,
        body_timeout: float = 30.0,
        body_rate: float = 1024.0,
        write_timeout: float = 12.0,
        max_in_flight: int = 512,
        new_id: Callable[[], str] = ids.new_id,
    ) -> None:
        self._pipeline = pipeline
        self._proxies = proxies
        self._max_body = max_body
        self._body_timeout = body_timeout
        self._body_rate = body_rate
        self._write_timeout = write_timeout
        self._max_in_flight = max_in_flight
        self._new_id = new_id

    # HTTP/1.1.

    async def serve(self, exchange: Exchange, ends: Ends) -> None:
        message = exchange.message
        if self._pipeline.at_work >= self._max_in_flight:
            exchange.request_id = self._new_id()
            origin = next((value for name, value in message.headers if name == b"origin"), None)
            await exchange.respond(self._pipeline.shed(exchange.request_id, origin))
            return
        request = self._request(
            message.method, message.headers, "https" if ends.tls else "http", message.version, ends.client
        )
        exchange.request_id = request.id
        exchange.body_limit = self._max_body
        request.wire = exchange
        raw, request.query = split_target(message.target, request.header(b"host"))
        response = await self._answer(request, raw)
        if not response.sent:
            await exchange.respond(response)

    async def _answer(self, request: Request, raw_path: bytes) -> Response:
        """Raises ClientGone."""
        try:
            request.path = _path(raw_path, request.method)
        except ProblemError as error:
            return self._pipeline.refuse(request, error)
        return await self._pipeline.handle(request)

    def unreadable(self, status: int, request_id: str) -> Response:
        return self._pipeline.unreadable(status, request_id)

    def takes_upgrade(self, exchange: Exchange) -> bool:
        """A WebSocket to an upstream is tunnelled, byte for byte; one to an application is Hypercorn's to speak."""
        raw, _ = split_target(exchange.message.target, None)
        try:
            return self._pipeline.leads_upstream(_path(raw, exchange.message.method))
        except ProblemError:
            return True

    # HTTP/2 and WebSocket, by ASGI.

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await self._websocket(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = self._request_of(scope, scope["method"], scope["scheme"])
        wire = AsgiWire(
            scope, receive, send, body_limit=self._max_body, body_timeout=self._body_timeout,
            write_timeout=self._write_timeout, body_rate=self._body_rate,
        )  # fmt: skip
        request.wire = wire
        try:
            if self._pipeline.at_work >= self._max_in_flight:
                response = self._pipeline.shed(request.id, request.header(b"origin"))
            else:
                response = await self._answer(request, scope["raw_path"])
        except ClientGone:
            return
        if not response.sent:
            await wire.respond(response)
        else:
            await wire.finish()

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The handshake is a GET that goes through the stages; then the application has it, or it is refused."""
        request = self._request_of(scope, "GET", scope["scheme"].replace("ws", "http"))
        try:
            request.path = _path(scope["raw_path"], "GET")
        except ProblemError as error:
            admitted: Admission = self._pipeline.refuse(request, error)
        else:
            admitted = await admit_websocket(self._pipeline, request)
        if isinstance(admitted, Response):
            await receive()  # the handshake itself
            await self._refuse_websocket(admitted, send)
        else:
            target, resolved = admitted
            await target.websocket(request, resolved, scope, receive, send)

    async def _refuse_websocket(self, response: Response, send: Send) -> None:
        headers = [*response.headers, (b"content-length", b"%d" % len(response.body))]
        with trio.move_on_after(self._write_timeout):
            await send({"type": "websocket.http.response.start", "status": response.status, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": response.body})

    def _request_of(self, scope: Scope, method: str, scheme: str) -> Request:
        request = self._request(method, scope["headers"], scheme, scope["http_version"], scope.get("client"))
        request.query = scope["query_string"]
        return request

    def _request(
        self, method: str, headers: Headers, scheme: str, version: str, client: tuple[str, int] | None
    ) -> Request:
        peer = normalised(client[0]) if client else LOCAL
        caller = peer
        if self._proxies.trusts(peer):
            caller = self._proxies.client(peer, [value for name, value in headers if name == b"x-forwarded-for"])
            scheme = _forwarded_scheme(headers) or scheme
        else:
            headers = [item for item in headers if not item[0].startswith(_FORWARDED)]
        return Request(
            method=method,
            path="",
            query=b"",
            headers=headers,
            body=b"",
            client=caller,
            id=self._new_id(),
            scheme=scheme,
            http_version=version,
            peer=peer,
            traceparent=traceparent([value for name, value in headers if name == b"traceparent"]),
        )


def shield_send(app: App, deadline: float) -> App:
    """*app* with a `send` that its own cancellation does not interrupt, for at most *deadline* seconds a message.

    A quart-trio app cancels its request's tasks as soon as the client is told to be done, while Hypercorn
    0.18 is still inside the last `send`, about to close the connection or to watch it for idleness: without
    this, no connection of such an app is ever closed.
    """

    async def shielded(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_shielded(message: Message) -> None:
            with trio.move_on_after(deadline, shield=True):
                await send(message)

        await app(scope, receive, send_shielded)

    return shielded


def _path(raw: bytes, method: str) -> str:
    """Raises a 400 problem."""
    if raw == b"*" and method == "OPTIONS":
        return "*"
    try:
        return canonical(raw)
    except PathError as error:
        raise ProblemError(400, str(error)) from None


def _forwarded_scheme(headers: Headers) -> str:
    """What the nearest proxy says the scheme was, "" if it says nothing sensible."""
    values = [value for name, value in headers if name == b"x-forwarded-proto"]
    scheme = values[-1].rpartition(b",")[2].strip().lower() if values else b""
    return scheme.decode() if scheme in (b"http", b"https") else ""
