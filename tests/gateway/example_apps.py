"""ASGI applications for `asgi:` targets, well-behaved and not."""

from typing import Any

import trio

from gateway.asgi_types import App, Receive, Scope, Send

not_an_app = 7


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Tells what it was given."""
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["name"] = "echo"
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    message = await receive()
    body = repr({**scope, "body": message["body"]}).encode()
    headers = [(b"Content-Type", b"text/plain"), (b"content-length", str(len(body)).encode()), (b"server", b"x")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body[:5], "more_body": True})
    await send({"type": "http.response.body", "body": body[5:]})
    assert (await receive())["type"] == "http.disconnect"


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("a bug")


async def raises_in_a_task(scope: Scope, receive: Receive, send: Send) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises, scope, receive, send)
        await trio.sleep_forever()


async def says_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    return


async def says_half(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})


async def says_it_twice(scope: Scope, receive: Receive, send: Send) -> None:
    await says_half(scope, receive, send)
    await says_half(scope, receive, send)


async def exits(scope: Scope, receive: Receive, send: Send) -> None:
    raise SystemExit(3)


def sends(status: int, *headers: tuple[bytes, bytes]) -> App:
    """An app that answers just this."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body"})

    return app


splits_a_header = sends(200, (b"x", b"a\r\nset-cookie: b"))
names_no_header = sends(200, (b"x y", b"a"))
switches_protocols = sends(101)
invents_a_status = sends(999)


class Holder:
    app: Any = staticmethod(echo)


async def repeats(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends back every WebSocket message."""
    if scope["type"] == "lifespan":
        return
    assert scope["type"] == "websocket"
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a GET with 16 MiB, part by part, and anything else with the size of its body."""
    if scope["type"] == "lifespan":
        return
    if scope["method"] == "GET":
        await send({"type": "http.response.start", "status": 200})
        for _ in range(256):
            await send({"type": "http.response.body", "body": b"*" * 65536, "more_body": True})
        await send({"type": "http.response.body"})
        return
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"%d" % size})
