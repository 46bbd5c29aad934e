"""A WebSocket through the proxy: after the handshake, bytes both ways until either side ends."""

from collections.abc import Awaitable, Callable

import trio

from gateway.forwarding import response_headers
from gateway.proxy.reader import Reader
from gateway.proxy.transport import Broken, TooSlow, Transport
from gateway.request import ClientGone, Response, Wire


async def tunnel(transport: Transport, reader: Reader, wire: Wire, idle: float) -> Response:
    """Answer 101 with what *reader* read, and copy until either side ends, or neither says anything for *idle* s.

    What either side does wrong from here on is the end of both, as it is without a proxy.
    """
    headers = response_headers(reader.headers, head=False)
    headers += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
    duplex = await wire.switch(Response(101, headers))
    if reader.rest:
        await duplex.send(reader.rest)

    async def copy(receive: Callable[[], Awaitable[bytes]], send: Callable[[bytes], Awaitable[None]]) -> None:
        try:
            while data := await receive():
                nursery.cancel_scope.deadline = trio.current_time() + idle
                await send(data)
        except (Broken, ClientGone, TooSlow):
            pass
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + idle
        nursery.start_soon(copy, transport.receive, duplex.send)
        nursery.start_soon(copy, duplex.receive, transport.send_all)
    return Response(101, sent=True)
