"""The server as a child of the tree: it starts, crashes, comes back and drains, and refuses nobody meanwhile."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from actors.metrics import Metrics
from actors.runtime import Backoff, Child, Mailbox, Supervisor, System, open_system
from gateway.asgi_types import App, Receive, Scope, Send
from gateway.front_end import Drain, FrontEnd
from gateway.sockets import open_sockets
from tests.gateway.serving import GET, hello, read_answer, respond


@asynccontextmanager
async def tree(app: App, *, backoff: float = 0.2) -> AsyncIterator[tuple[System, list[socket.socket]]]:
    sockets = open_sockets(["127.0.0.1:0"])
    metrics = Metrics()
    child = Child(
        "front_end",
        partial(FrontEnd, "public", lambda actor: app, sockets, metrics),
        mailbox=Mailbox(8),
        backoff=Backoff(first=backoff, min=backoff),
    )
    try:
        async with open_system(Supervisor("root", children=[child])) as system:
            yield system, sockets
    finally:
        for sock in sockets:
            sock.close()


async def connect(sockets: list[socket.socket]) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", sockets[0].getsockname()[1])


async def test_it_is_ready_when_it_accepts() -> None:
    async with tree(hello) as (_, sockets), await connect(sockets) as stream:
        await stream.send_all(GET)
        assert (await read_answer(stream)).endswith(b"hello")


async def test_the_app_is_made_with_the_actor_so_that_it_finds_its_neighbours() -> None:
    sockets = open_sockets(["127.0.0.1:0"])
    found: list[str] = []

    def make_app(actor: FrontEnd) -> App:
        found.append(actor.lookup("front_end").id)
        return hello

    child = Child("front_end", lambda: FrontEnd("public", make_app, sockets, Metrics()), mailbox=Mailbox(8))
    with sockets[0]:
        async with open_system(Supervisor("root", children=[child])):
            assert found == ["front_end"]


async def test_while_it_restarts_who_connects_waits_and_is_served() -> None:
    async with tree(hello, backoff=0.3) as (system, sockets):
        system.crash("front_end")
        system.ref("front_end").try_tell(Drain(0.0))  # the message it crashes on
        await trio.sleep(0.05)
        async with await connect(sockets) as stream:
            await stream.send_all(GET)
            assert (await read_answer(stream)).endswith(b"hello")


async def test_drained_it_has_answered_what_was_in_flight_and_refuses_the_rest() -> None:
    release = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await respond(send)

    async with tree(app) as (system, sockets):
        port = sockets[0].getsockname()[1]
        async with await connect(sockets) as stream:
            await stream.send_all(GET)
            await trio.sleep(0.05)
            async with trio.open_nursery() as nursery:

                async def drain() -> None:
                    assert await system.ref("front_end").ask(Drain(5.0))

                nursery.start_soon(drain)
                await trio.sleep(0.05)
                with pytest.raises(OSError, match="all attempts to connect"):
                    await trio.open_tcp_stream("127.0.0.1", port)
                release.set()
                assert (await read_answer(stream)).endswith(b"hello")


async def test_after_its_drain_a_restart_opens_nothing() -> None:
    async with tree(hello, backoff=0.05) as (system, sockets):
        await system.ref("front_end").ask(Drain(1.0))
        system.crash("front_end")
        system.ref("front_end").try_tell(Drain(0.0))
        await trio.sleep(0.3)
        assert await system.ref("front_end").ask(Drain(1.0))
        assert sockets[0].fileno() == -1


async def test_what_does_not_end_within_the_drain_is_cut() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await trio.sleep_forever()

    async with tree(app) as (system, sockets), await connect(sockets) as stream:
        await stream.send_all(GET)
        await trio.sleep(0.05)
        with trio.fail_after(2):
            assert not await system.ref("front_end").ask(Drain(0.1))
