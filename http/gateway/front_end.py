"""The `front_end` actor (and any other listener of the tree): a server as a supervised child."""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from actors.metrics import Metrics
from actors.runtime import Actor, Later
from gateway.asgi_types import App
from gateway.request import Headers
from gateway.server import Server, ServerLimits, TlsRef

_BEAT_S = 0.5


@dataclass(frozen=True, slots=True)
class Drain:
    """→ bool: whether every request in flight ended within *timeout* seconds; those that did not were cut.

    It accepts nothing any more, and a restart will not either: the listening sockets are closed.
    """

    timeout: float
    linger: float = 0.0
    """For so long an idle connection may bring one more request."""


@dataclass(frozen=True, slots=True)
class Beat:
    """Half a second has passed. Nobody else sends a listener anything, and whoever is told to crash on its next
    message (`POST /tree/{id}/kill`) must get one."""


class FrontEnd(Actor[Drain | Beat]):
    """Serves an app on *sockets*, which are listening and belong to the composition root.

    *make_app* is called once an incarnation, in `on_start`, with this actor: so the app is wired with its
    `lookup`. Ready when it accepts. A crash cuts its connections; the sockets stay open, so the kernel keeps
    those who connect meanwhile, and the next incarnation serves them. Under `on_crash="fail"`. Stopped
    without a `Drain` before, it cuts what is in flight.
    """

    def __init__(
        self,
        name: str,
        make_app: Callable[["FrontEnd"], App],
        sockets: Sequence[socket.socket],
        metrics: Metrics,
        limits: ServerLimits | None = None,
        *,
        lifespan: bool = False,
        log_requests: bool = True,
        tls: TlsRef | None = None,
        extra: Headers | None = None,
    ) -> None:
        self._make_app = make_app
        self._make_server = partial(
            Server,
            name,
            sockets=sockets,
            metrics=metrics,
            limits=limits,
            lifespan=lifespan,
            log_requests=log_requests,
            tls=tls,
            extra=extra,
        )
        self._server: Server

    async def on_start(self) -> None:
        self._server = self._make_server(app=self._make_app(self))
        accepting = trio.Event()

        async def serve() -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._server.serve)
                accepting.set()

        self.spawn(serve)
        await accepting.wait()
        self.timer(_BEAT_S, Beat(), every=_BEAT_S)

    async def handle(self, message: Drain | Beat) -> Later | None:
        if isinstance(message, Beat):
            return None
        later = self.later()
        self.spawn(self._drain, message, later)
        return later

    async def _drain(self, message: Drain, later: Later) -> None:
        later.answer(await self._server.drain(message.timeout, message.linger))
