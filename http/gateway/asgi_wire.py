"""The `Wire` of a request that came by ASGI, from Hypercorn's HTTP/2."""

import trio

from gateway.asgi_types import Message, Receive, Scope, Send
from gateway.problem import ProblemError
from gateway.request import ClientGone, Duplex, Response, body_wait

_CHUNK = 64 * 1024
_LINGER_S = 2.0


class AsgiWire:
    switches = False

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        body_limit: int,
        body_timeout: float,
        write_timeout: float,
        body_rate: float = 0.0,
    ) -> None:
        length = next((value for name, value in scope["headers"] if name == b"content-length"), None)
        self.length = int(length) if length is not None and length.isdigit() else None
        self.has_body = self.length != 0  # nothing says so before the end
        self.body_limit = body_limit
        self._receive = receive
        self._send = send
        self._head_only = scope["method"] == "HEAD"
        self._body_timeout = body_timeout
        self._body_rate = body_rate
        self._waited = 0.0
        self._write_timeout = write_timeout
        self._received = 0
        self._ended = False
        self._cut = False

    async def receive(self) -> bytes:
        if self.length is not None and self.length > self.body_limit:
            raise self._too_large()
        while not self._ended:
            began = trio.current_time()
            allowed = body_wait(self._body_timeout, self._body_rate, self._received, self._waited)
            with trio.move_on_after(allowed) as timeout:
                message = await self._receive()
            if timeout.cancelled_caught:
                raise ProblemError(408, "the rest of the body did not come in time")
            self._waited += trio.current_time() - began
            if message["type"] != "http.request":
                raise ClientGone
            part: bytes = message.get("body", b"")
            self._ended = not message.get("more_body", False)
            self._received += len(part)
            if self._received > self.body_limit:
                raise self._too_large()
            if part:
                return part
        return b""

    async def read(self) -> bytes:
        parts = []
        while part := await self.receive():
            parts.append(part)
        return b"".join(parts)

    async def wait_closed(self) -> None:
        while (await self._receive())["type"] == "http.request":
            pass

    def _too_large(self) -> ProblemError:
        return ProblemError(413, f"the body is larger than {self.body_limit} bytes")

    async def start(self, response: Response) -> None:
        await self._out({"type": "http.response.start", "status": response.status, "headers": response.headers})

    async def write(self, data: bytes) -> None:
        for begin in range(0, 0 if self._head_only else len(data), _CHUNK):
            await self._out(_body(data[begin : begin + _CHUNK], more=True))

    async def switch(self, response: Response) -> Duplex:
        raise RuntimeError("HTTP/2 has no 101")

    def cut(self) -> None:
        self._cut = True

    async def respond(self, response: Response) -> None:
        """A whole answer. Whatever of the request was not read is taken for a while: Hypercorn's reader would wait
        for ever for an app that no longer receives."""
        headers, body = response.headers, b"" if self._head_only else response.body
        told = self._head_only and (not response.body or any(name == b"content-length" for name, _ in headers))
        if response.status not in (204, 304) and not told:
            headers = [*headers, (b"content-length", b"%d" % len(response.body))]
        try:
            await self.start(Response(response.status, headers))
            await self.write(body)
            await self.finish()
        except ClientGone:
            return

    async def finish(self) -> None:
        if self._cut:
            raise RuntimeError("an answer was cut short")  # whereupon Hypercorn resets the stream
        if not self._ended and self._received:
            with trio.move_on_after(_LINGER_S):
                while (await self._receive()).get("more_body", False):
                    pass
        await self._out(_body(b"", more=False))

    async def _out(self, message: Message) -> None:
        with trio.move_on_after(self._write_timeout) as timeout:
            await self._send(message)
        if timeout.cancelled_caught:
            raise ClientGone("the client took nothing of what was sent to it")


def _body(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}
