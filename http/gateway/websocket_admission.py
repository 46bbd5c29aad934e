"""A WebSocket's handshake that came by ASGI, through the stages of a request: who is to have it, or why nobody."""

from typing import Protocol, runtime_checkable

import trio

from actors.router.messages import Resolved
from gateway.asgi_types import Receive, Scope, Send
from gateway.pipeline import Exchange, Pipeline
from gateway.problem import ProblemError
from gateway.request import Request, Response
from gateway.services.events import outcome


@runtime_checkable
class WebSocketTarget(Protocol):
    """A target that an application may be talked to through by WebSocket."""

    async def websocket(
        self, request: Request, resolved: Resolved, scope: Scope, receive: Receive, send: Send
    ) -> None: ...


Admission = Response | tuple[WebSocketTarget, Resolved]


async def admit_websocket(pipeline: Pipeline, request: Request) -> Admission:
    """Let the handshake *request* through the stages: who is to have it, or the answer that refuses it."""
    admitted: list[tuple[WebSocketTarget, Resolved]] = []

    async def stages() -> Response:
        resolved = await pipeline.admit(exchange)
        target = pipeline.targets.of(resolved.route)
        if not isinstance(target, WebSocketTarget):
            raise ProblemError(403, "no WebSocket is served here")
        admitted.append((target, resolved))
        return Response(101)

    exchange = Exchange(request, trio.current_time())
    response = await pipeline.answer(exchange, stages)
    if not admitted:
        return pipeline.finish(exchange, response)
    pipeline.count(exchange, response)
    pipeline.audit(exchange, outcome(response.status), response.status)
    return admitted[0]
