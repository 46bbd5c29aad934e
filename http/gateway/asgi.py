"""Between ASGI, as Hypercorn speaks it, and the pipeline: bytes in, one `Request`; one `Response`, bytes out."""

from collections.abc import Callable

import trio

from gateway import ids
from gateway.address import LOCAL, TrustedProxies, normalised
from gateway.asgi_types import App, Message, Receive, Scope, Send
from gateway.paths import PathError, canonical
from gateway.pipeline import Pipeline
from gateway.problem import ProblemError
from gateway.request import Headers, Request, Response
from gateway.trace import traceparent

_CHUNK = 64 * 1024
_LINGER_S = 2.0
_CLOSE = (b"connection", b"close")
_FORWARDED = (b"x-forwarded-", b"x_forwarded_", b"forwarded", b"x-real-ip")


class _Gone(Exception):
    """The client left before its request was complete: there is nobody to answer."""


class GatewayApp:
    """The ASGI app of the public listener.

    Args:
        max_body: bytes of a request's body; more is a 413 problem.
        body_timeout: seconds from the head of a request to the end of its body; then 408.
        write_timeout: seconds in which the client must take each 64 KiB of an answer.

    A client that disconnects cancels nothing: what its request started is finished, and the answer dropped.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        proxies: TrustedProxies,
        *,
        max_body: int = 1024 * 1024,
        body_timeout: float = 30.0,
        write_timeout: float = 12.0,
        new_id: Callable[[], str] = ids.new_id,
    ) -> None:
        self._pipeline = pipeline
        self._proxies = proxies
        self._max_body = max_body
        self._body_timeout = body_timeout
        self._write_timeout = write_timeout
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await self._websocket(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = self._request(scope)
        has_body = _has_body(scope)
        try:
            request.path = _path(scope)
            if has_body:
                self._check_framing(request)
                request.body = await self._read_body(receive)
        except _Gone:
            return
        except ProblemError as error:
            response = self._pipeline.refuse(request, error)
            if has_body:
                await self._respond_early(request, response, receive, send)
            else:
                await self._respond(request, response, send)
            return
        await self._respond(request, await self._pipeline.handle(request), send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the handshake, which is a GET: as a problem, like any other answer."""
        await receive()
        request = self._request({**scope, "method": "GET", "scheme": scope["scheme"].replace("ws", "http")})
        response = self._pipeline.refuse(request, ProblemError(403, "no WebSocket is served here"))
        start = _start(response, keep_length=False)
        headers = [*start["headers"], *([_CLOSE] if request.http_version[0] == "1" else [])]
        with trio.move_on_after(self._write_timeout):
            await send({"type": "websocket.http.response.start", "status": response.status, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": response.body})

    # In.

    def _request(self, scope: Scope) -> Request:
        headers: Headers = scope["headers"]
        client = scope.get("client")
        peer = normalised(client[0]) if client else LOCAL
        scheme = scope["scheme"]
        caller = peer
        if self._proxies.trusts(peer):
            caller = self._proxies.client(peer, [value for name, value in headers if name == b"x-forwarded-for"])
            scheme = _forwarded_scheme(headers) or scheme
        else:
            headers = [item for item in headers if not item[0].startswith(_FORWARDED)]
        return Request(
            method=scope["method"],
            path="",
            query=scope["query_string"],
            headers=headers,
            body=b"",
            client=caller,
            id=self._new_id(),
            scheme=scheme,
            http_version=scope["http_version"],
            peer=peer,
            traceparent=traceparent([value for name, value in headers if name == b"traceparent"]),
        )

    def _check_framing(self, request: Request) -> None:
        length = request.header(b"content-length")
        if length is None:
            return
        if request.header(b"transfer-encoding") is not None:
            # Two lengths are how requests are smuggled past a proxy (RFC 9112 §6.3).
            raise ProblemError(400, "the request has both Content-Length and Transfer-Encoding")
        if length.isdigit() and int(length) > self._max_body:
            raise self._too_large()

    async def _read_body(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        with trio.move_on_after(self._body_timeout):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise _Gone
                part: bytes = message.get("body", b"")
                size += len(part)
                if size > self._max_body:
                    raise self._too_large()
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
        raise ProblemError(408, f"the request was not complete within {self._body_timeout:g} s")

    def _too_large(self) -> ProblemError:
        return ProblemError(413, f"the body is larger than {self._max_body} bytes")

    # Out.

    async def _respond(self, request: Request, response: Response, send: Send) -> None:
        head = request.method == "HEAD"
        body = b"" if head else response.body
        start = _start(response, keep_length=head)
        with trio.move_on_after(self._write_timeout) as timeout:
            await send(start)
            await send(_body(body[:_CHUNK], more=len(body) > _CHUNK))
        for begin in range(_CHUNK, len(body), _CHUNK):
            if timeout.cancelled_caught:
                return  # an answer cut short: Hypercorn closes the connection
            with trio.move_on_after(self._write_timeout) as timeout:
                await send(_body(body[begin : begin + _CHUNK], more=len(body) > begin + _CHUNK))

    async def _respond_early(self, request: Request, response: Response, receive: Receive, send: Send) -> None:
        """Answer while the client still sends: the answer first, then take the rest for a while.

        Closing with input unread makes the kernel reset the connection, and the client may never see the
        answer. And Hypercorn's reader would wait for ever for an app that no longer receives.
        """
        if request.http_version[0] == "1":
            response.headers.append(_CLOSE)
        with trio.move_on_after(self._write_timeout):
            await send(_start(response, keep_length=False))
            await send(_body(response.body, more=True))
        with trio.move_on_after(_LINGER_S):
            while (await receive()).get("more_body", False):
                pass
        with trio.move_on_after(self._write_timeout):
            await send(_body(b"", more=False))


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


def _path(scope: Scope) -> str:
    raw: bytes = scope["raw_path"]
    if raw == b"*" and scope["method"] == "OPTIONS":
        return "*"
    try:
        return canonical(raw)
    except PathError as error:
        raise ProblemError(400, str(error)) from None


def _has_body(scope: Scope) -> bool:
    """Whether the client may send one. In HTTP/1 its headers say so; in HTTP/2 nothing does before the end."""
    if scope["http_version"][0] != "1":
        return True
    return any(
        (name == b"content-length" and value != b"0") or name == b"transfer-encoding"
        for name, value in scope["headers"]
    )


def _forwarded_scheme(headers: Headers) -> str:
    """What the nearest proxy says the scheme was, "" if it says nothing sensible."""
    values = [value for name, value in headers if name == b"x-forwarded-proto"]
    scheme = values[-1].rpartition(b",")[2].strip().lower() if values else b""
    return scheme.decode() if scheme in (b"http", b"https") else ""


def _start(response: Response, *, keep_length: bool) -> Message:
    """*keep_length*: it answers HEAD; its length is that of the body a GET would get, and unsaid when nobody knows."""
    headers = response.headers
    bodiless = response.status in (204, 304) or response.status < 200
    told = keep_length and (not response.body or any(name == b"content-length" for name, _ in headers))
    if not bodiless and not told:
        headers = [*headers, (b"content-length", b"%d" % len(response.body))]
    return {"type": "http.response.start", "status": response.status, "headers": headers}


def _body(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}
