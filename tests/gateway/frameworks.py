"""The same small application in three frameworks, for `asgi:` targets: uploads, streams, SSE, WebSocket."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import trio
from fastapi import FastAPI, Form, UploadFile
from fastapi import Request as FastApiRequest
from fastapi import WebSocket as FastApiWebSocket
from quart import request, websocket
from quart_trio import QuartTrio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

PART = bytes(range(256)) * 64
PARTS = 40


class Gone:
    """How often a client was seen to leave in the middle of an endless answer."""

    def __init__(self) -> None:
        self.count = 0


async def parts() -> AsyncIterator[bytes]:
    for _ in range(PARTS):
        await trio.lowlevel.checkpoint()
        yield PART


async def events() -> AsyncIterator[bytes]:
    for number in range(3):
        yield b"data: %d\n\n" % number
        await trio.sleep(0.05)


async def ticks_until_gone(gone: Gone, request: Request) -> AsyncIterator[bytes]:
    while not await request.is_disconnected():
        yield b"data: tick\n\n"
        await trio.sleep(0.02)
    gone.count += 1


async def ticks_until_cancelled(gone: Gone) -> AsyncIterator[bytes]:
    try:
        while True:
            yield b"data: tick\n\n"
            await trio.sleep(0.02)
    finally:
        gone.count += 1


def starlette_app(gone: Gone) -> Any:
    async def upload(request: Request) -> JSONResponse:
        size = 0
        async for part in request.stream():
            size += len(part)
        return JSONResponse({"size": size})

    async def form(request: Request) -> JSONResponse:
        async with request.form() as fields:
            file: Any = fields["file"]
            return JSONResponse({"size": len(await file.read()), "name": fields["name"]})

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(parts())

    async def sse(request: Request) -> StreamingResponse:
        return StreamingResponse(events(), media_type="text/event-stream")

    async def ticks(request: Request) -> StreamingResponse:
        return StreamingResponse(ticks_until_gone(gone, request), media_type="text/event-stream")

    async def echo(socket: WebSocket) -> None:
        await _echo(socket)

    routes = [
        Route("/upload", upload, methods=["POST"]),
        Route("/form", form, methods=["POST"]),
        Route("/stream", stream),
        Route("/sse", sse),
        Route("/endless", ticks),
        WebSocketRoute("/ws", echo),
    ]
    return Starlette(routes=routes)


def fastapi_app(gone: Gone) -> Any:
    app = FastAPI()

    @app.post("/upload")
    async def upload(request: FastApiRequest) -> dict[str, int]:
        size = 0
        async for part in request.stream():
            size += len(part)
        return {"size": size}

    @app.post("/form")
    async def form(file: UploadFile, name: Annotated[str, Form()]) -> dict[str, Any]:
        return {"size": len(await file.read()), "name": name}

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(parts())

    @app.get("/sse")
    async def sse() -> StreamingResponse:
        return StreamingResponse(events(), media_type="text/event-stream")

    @app.get("/endless")
    async def ticks(request: FastApiRequest) -> StreamingResponse:
        return StreamingResponse(ticks_until_gone(gone, request), media_type="text/event-stream")

    @app.websocket("/ws")
    async def echo(socket: FastApiWebSocket) -> None:
        await _echo(socket)

    return app


def quart_app(gone: Gone) -> Any:
    app = QuartTrio(__name__)
    app.config["MAX_CONTENT_LENGTH"] = None

    @app.post("/upload")
    async def upload() -> dict[str, int]:
        size = 0
        async for part in request.body:
            size += len(part)
        return {"size": size}

    @app.post("/form")
    async def form() -> dict[str, Any]:
        files, fields = await request.files, await request.form
        return {"size": len(files["file"].read()), "name": fields["name"]}

    @app.get("/stream")
    async def stream() -> Any:
        return parts()

    @app.get("/sse")
    async def sse() -> Any:
        return events(), {"content-type": "text/event-stream"}

    @app.get("/endless")
    async def ticks() -> Any:
        return ticks_until_cancelled(gone), {"content-type": "text/event-stream"}

    @app.websocket("/ws")
    async def echo() -> None:
        while True:
            await websocket.send(await websocket.receive())

    return app


async def _echo(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is not None:
                await socket.send_text(message["text"])
            else:
                await socket.send_bytes(message["bytes"])
    except WebSocketDisconnect:
        return
