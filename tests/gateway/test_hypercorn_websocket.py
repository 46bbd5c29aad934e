"""What is changed in Hypercorn's WebSocket: the code an app is told, and what is kept of a message too large."""

import pytest
from hypercorn.protocol.ws_stream import FrameTooLargeError
from wsproto.events import BytesMessage

from gateway.asgi_types import Receive, Scope, Send
from gateway.hypercorn_websocket import BoundedBuffer
from tests.flow.test_websockets import TEXT, close, frame
from tests.gateway.serving import WEBSOCKET, is_closed, serving, until


@pytest.mark.parametrize(
    ("sent", "code"),
    [(close(4000), 4000), (close(None), 1005), (frame(TEXT, b"\xff"), 1007), (b"", 1006)],
    ids=["its own", "none", "of a breach", "it just left"],
)
async def test_an_app_is_told_the_code_that_its_client_closed_with(sent: bytes, code: int) -> None:
    codes = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        codes.append((await receive())["code"])

    async with serving(app) as here:
        async with await here.connect() as stream:
            await stream.send_all(WEBSOCKET)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
            await stream.send_all(sent)
            await stream.send_eof()
            assert await is_closed(stream)
        await until(lambda: bool(codes))
        assert here.faults() == 0
    assert codes == [code]


async def test_who_does_not_close_after_a_breach_is_closed() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.accept"})

    async with serving(app) as here, await here.connect() as stream:
        await stream.send_all(WEBSOCKET)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
        await stream.send_all(frame(TEXT, b"\xff"))
        await until(lambda: not here.server.connections)


def test_a_buffer_keeps_no_more_of_what_was_too_large() -> None:
    buffer = BoundedBuffer(3)
    buffer.extend(BytesMessage(data=b"abc"))
    for _ in range(3):
        with pytest.raises(FrameTooLargeError):
            buffer.extend(BytesMessage(data=b"de"))
    assert buffer.length == 5
