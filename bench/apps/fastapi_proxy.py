"""A gateway in front of one upstream, as FastAPI's users write it: one shared httpx.AsyncClient.

PEER_UPSTREAM=http://127.0.0.1:9000 uvicorn bench.apps.fastapi_proxy:app --loop uvloop --http httptools
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding")
) | {"upgrade"}
STREAMED = os.environ.get("PEER_BODY", "streamed") == "streamed"
# The default keeps 20 connections; with 64 requests at once the others would be opened and closed all the time.
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with httpx.AsyncClient(base_url=os.environ["PEER_UPSTREAM"], limits=LIMITS) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
async def forward(path: str, request: Request) -> Response:
    client: httpx.AsyncClient = request.app.state.client
    headers = [(name, value) for name, value in request.headers.items() if name not in HOP_BY_HOP | {"host"}]
    url = httpx.URL(path=request.url.path, query=request.url.query.encode())
    asked = client.build_request(request.method, url, headers=headers, content=await request.body())
    answer = await client.send(asked, stream=STREAMED)
    if STREAMED:
        kept = {name: value for name, value in answer.headers.items() if name not in HOP_BY_HOP}
        closing = BackgroundTask(answer.aclose)
        return StreamingResponse(answer.aiter_raw(), answer.status_code, kept, background=closing)
    # httpx has decoded the body: its length and encoding are no longer the upstream's.
    dropped = HOP_BY_HOP | {"content-encoding", "content-length"}
    kept = {name: value for name, value in answer.headers.items() if name not in dropped}
    return Response(answer.content, answer.status_code, kept)
