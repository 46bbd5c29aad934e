"""Weir's own HTTP server with a bare ASGI app: no stages, no tree, no events. Ended by SIGTERM.

.venv/bin/python -m bench.apps.weir_hello 127.0.0.1:8000
"""

import gc
import signal
import sys

import trio

from actors.metrics import Metrics
from bench.apps.hello import app
from gateway.server import Server
from gateway.sockets import open_sockets

DRAIN_S = 5.0


async def serve(bind: str) -> None:
    server = Server("hello", app, open_sockets([bind]), Metrics(), lifespan=True, log_requests=False)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            gc.collect()
            gc.freeze()  # as the supervisor does once it is ready
            await anext(aiter(signals))
            await server.drain(DRAIN_S)


if __name__ == "__main__":
    trio.run(serve, sys.argv[1])
