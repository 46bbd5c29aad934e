"""Receivers that listen for the length of a test."""

from collections.abc import Iterator

import pytest
import trio

from tests.consumers.receivers import Endpoint, Mailbox, Relay


@pytest.fixture
async def endpoint(nursery: trio.Nursery) -> Endpoint:
    made = Endpoint()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    made.port = listener.socket.getsockname()[1]
    nursery.start_soon(trio.serve_listeners, made.serve, [listener])
    return made


@pytest.fixture
def relay() -> Iterator[Relay]:
    made = Relay(Mailbox(), hostname="127.0.0.1", port=0)
    made.start()
    yield made
    made.stop()
