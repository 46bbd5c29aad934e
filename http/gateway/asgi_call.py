"""One call of an ASGI application over a `Wire`, without a task or channel of its own."""

import re
from collections.abc import Callable, Iterable

import trio

from gateway.asgi_types import Message
from gateway.problem import ProblemError
from gateway.request import ClientGone, Headers, Response, Wire

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")  # RFC 9110 §5.1
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Call:
    """Both ends of one call of an application.

    After the body, `receive` waits until the response is complete or the client has gone, then disconnects.
    """

    def __init__(self, method: str, wire: Wire | None, body: bytes, passed: Callable[[Headers], Headers]) -> None:
        """*body*: the request's, where there is no *wire* to receive it from. *passed*: those of the application's
        headers that are passed on, `content-length` among them."""
        self._head_only = method == "HEAD"
        self._wire = wire
        self._passed = passed
        self._body: bytes | None = body
        """What is still to be received, without a wire; None: the end of the body was told."""
        self._listening: set[trio.CancelScope] = set()
        self._response: Response | None = None
        self._sent = False
        self.client_gone = False
        """The application was told so, one way or the other: whatever it raises afterwards is no fault of its own."""
        self._complete = False

    async def receive(self) -> Message:
        if self._body is not None:
            return await self._receive_body()
        if not self._complete:
            await self._listen()
        await trio.lowlevel.cancel_shielded_checkpoint()  # an application that asks for ever holds up nobody
        return {"type": "http.disconnect"}

    async def _listen(self) -> None:
        """Until the response is complete or the client has gone. An application may ask again and again."""
        with trio.CancelScope() as scope:
            self._listening.add(scope)
            try:
                if self._wire is None:
                    await trio.sleep_forever()
                else:
                    await self._wire.wait_closed()
                    self.client_gone = True
            finally:
                self._listening.discard(scope)

    async def _receive_body(self) -> Message:
        if self._wire is None or not self._wire.has_body:
            # Not cancelled: who asks under a cancelled scope whether the client has gone gets past this, too.
            await trio.lowlevel.cancel_shielded_checkpoint()
            part, self._body = self._body or b"", None
            return {"type": "http.request", "body": part, "more_body": False}
        try:
            part = await self._wire.receive()
        except ClientGone:
            self._body = None
            self.client_gone = True
            return {"type": "http.disconnect"}
        if not part:
            self._body = None
        return {"type": "http.request", "body": part, "more_body": bool(part)}

    async def send(self, message: Message) -> None:
        try:
            await self._take(message)
        except ClientGone:
            self.client_gone = True
            raise

    async def _take(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start" if self._response is None:
                kept = self._passed(_checked(message.get("headers", ())))
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
            for scope in self._listening:
                scope.cancel()

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


def reason(error: BaseException) -> ClientGone | ProblemError | None:
    """What of the client's doing, if anything, an application (or its nursery) fell over."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for found in map(reason, error.exceptions) if found is not None), None)
    return error if isinstance(error, ClientGone | ProblemError) else None


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
