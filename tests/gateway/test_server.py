"""The fences around Hypercorn, on the real server: one connection's fault is that connection's end."""

import os
import socket
import stat
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.settings
import pytest
import trio
from quart_trio import QuartTrio
from trio.testing import MockClock

from actors.metrics import Metrics
from gateway.asgi import shield_send
from gateway.asgi_types import Message, Receive, Scope, Send
from gateway.lifespan import Lifespan, LifespanError
from gateway.server import Server
from gateway.sockets import BindError, address_of, open_sockets
from tests.gateway.serving import GET, WEBSOCKET, hello, is_closed, read_answer, respond, serving, until


async def test_it_answers_and_keeps_the_connection() -> None:
    async with serving(hello) as here, await here.connect() as stream:
        for _ in range(3):
            await stream.send_all(GET)
            answer = await read_answer(stream)
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b"hello")
            assert b"server: weir" in answer
            assert answer.count(b"date:") == 1


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, scope["raw_path"])

    async with serving(app) as here, await here.connect() as stream:
        await stream.send_all(GET.replace(b"/ ", b"/1 ") + GET.replace(b"/ ", b"/2 "))
        first = await read_answer(stream)
        rest = first.partition(b"/1")[2]
        while b"/2" not in rest:
            rest += await stream.receive_some()
        assert b"/1" in first


@pytest.mark.parametrize(
    "sent",
    [
        GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        b"GET / HTTP/1.0\r\n\r\n",
    ],
)
async def test_who_asks_for_a_close_gets_one(sent: bytes) -> None:
    async with serving(hello) as here, await here.connect() as stream:
        await stream.send_all(sent)
        assert await is_closed(stream)


async def test_an_idle_connection_is_closed() -> None:
    async with serving(hello, keep_alive_timeout=0.1) as here, await here.connect() as stream:
        await stream.send_all(GET)
        await read_answer(stream)
        assert await is_closed(stream)


async def test_a_head_that_never_ends_is_closed() -> None:
    async with serving(hello, header_timeout=0.1) as here, await here.connect() as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost:")
        assert await is_closed(stream)


# quart-trio: its connections were never closed.


def quart_app() -> QuartTrio:
    app = QuartTrio(__name__)

    @app.get("/")
    async def index() -> str:
        return "hello"

    return app


@pytest.mark.parametrize(
    "sent",
    [GET, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), b"GET / HTTP/1.0\r\nHost: weir\r\n\r\n"],
)
async def test_connections_of_a_quart_trio_app_are_closed(sent: bytes) -> None:
    async with serving(shield_send(quart_app(), 5.0), keep_alive_timeout=0.1) as here, await here.connect() as stream:  # type: ignore[arg-type]
        await stream.send_all(sent)
        assert (await read_answer(stream)).endswith(b"hello")
        assert await is_closed(stream)


async def test_a_quart_trio_app_keeps_a_connection_that_is_used() -> None:
    async with serving(shield_send(quart_app(), 5.0), lifespan=True) as here, await here.connect() as stream:  # type: ignore[arg-type]
        for _ in range(3):
            await stream.send_all(GET)
            assert (await read_answer(stream)).endswith(b"hello")


async def test_a_shielded_send_is_not_interrupted_but_bounded(autojump_clock: MockClock) -> None:
    ended: list[float] = []

    async def send(message: Message) -> None:
        await trio.sleep(message["takes"])
        ended.append(message["takes"])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with trio.move_on_after(1):
            await send({"type": "test", "takes": 3.0})
        await send({"type": "test", "takes": 99.0})

    async def receive() -> Message:
        return {}

    started = trio.current_time()
    await shield_send(app, 5.0)({}, receive, send)
    assert ended == [3.0]
    assert trio.current_time() - started == 8.0


# Exceptions of one connection.


async def test_an_app_that_raises_is_a_500_and_nobody_elses_business() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a bug")

    async with serving(app) as here:
        for _ in range(2):
            assert (await here.ask(GET)).startswith(b"HTTP/1.1 500")


async def test_junk_after_an_upgrade_to_an_app_that_raises_ends_that_connection_alone() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            raise RuntimeError("a bug")
        await respond(send)

    async with serving(app) as here:
        async with await here.connect() as stream:
            await stream.send_all(WEBSOCKET + b"\xff\xff\xffjunk that is no frame")
            assert await is_closed(stream)
        assert (await here.ask(GET)).startswith(b"HTTP/1.1 200")


async def test_h2c_data_after_the_answer_ends_its_stream_alone() -> None:
    async with serving(hello, h2c=True) as here:
        async with await here.connect() as stream:
            client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
            client.initiate_connection()
            headers = [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "weir")]
            client.send_headers(1, headers)
            await stream.send_all(client.data_to_send())
            answered = False
            with trio.fail_after(5):
                while not answered:
                    events = client.receive_data(await stream.receive_some())
                    answered = any(type(event).__name__ == "StreamEnded" for event in events)
            client.send_data(1, b"late")
            await stream.send_all(client.data_to_send())
            client.send_headers(3, [(":method", "GET"), *headers[1:]], end_stream=True)
            await stream.send_all(client.data_to_send())
            seen: list[str] = []
            with trio.fail_after(5):
                while "StreamEnded" not in seen:
                    seen += [type(event).__name__ for event in client.receive_data(await stream.receive_some())]
            assert "StreamReset" in seen
        assert here.faults() == 0
        assert (await here.ask(GET)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "sent",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000,
        b"\r\n" * 50_000,
    ],
)
async def test_what_is_no_request_is_refused_and_closed(sent: bytes) -> None:
    async with serving(hello, header_timeout=0.5) as here:
        async with await here.connect() as stream:
            try:
                await stream.send_all(sent)
            except trio.BrokenResourceError:
                pass
            assert await is_closed(stream)
        assert (await here.ask(GET)).startswith(b"HTTP/1.1 200")
        assert here.faults() == 0


async def test_an_offer_of_h2c_is_not_taken_and_the_request_answered() -> None:
    sent = GET.replace(
        b"\r\n\r\n", b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    )
    async with serving(hello) as here:
        assert (await here.ask(sent)).startswith(b"HTTP/1.1 200")


async def test_a_client_that_resets_harms_nobody() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await trio.sleep(0.05)
        await respond(send, b"x" * 1_000_000)

    async with serving(app) as here:
        for _ in range(3):
            stream = await here.connect()
            await stream.send_all(GET)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            await stream.aclose()
        await until(lambda: here.server.connections == 0)
        assert here.faults() == 0


# Slow readers.


async def big(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, b"x" * 30_000_000)


async def test_a_client_that_does_not_read_is_cut() -> None:
    async with serving(big, write_timeout=0.2) as here, await here.connect() as stream:
        await stream.send_all(GET)
        await until(lambda: here.server.connections == 1)
        await until(lambda: here.server.connections == 0)


async def test_a_client_that_reads_slowly_but_steadily_gets_everything() -> None:
    size = 12_000_000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, bytes(size))

    async with serving(app, write_timeout=0.5) as here, await here.connect() as stream:
        await stream.send_all(GET)
        received = 0
        started = trio.current_time()
        while received < size:
            part = await stream.receive_some(256 * 1024)
            assert part, "it was cut"
            received += len(part)
            await trio.sleep(0.02)
        assert trio.current_time() - started > 0.5  # longer than any single wait may be


async def test_a_client_that_does_not_read_holds_up_no_drain() -> None:
    async with serving(big, write_timeout=5.0) as here, await here.connect() as stream:
        await stream.send_all(GET)
        await trio.sleep(0.05)
        with trio.fail_after(2):
            assert not await here.server.drain(0.2)
        assert here.server.connections == 0


async def test_a_client_that_does_not_read_holds_up_no_cancellation() -> None:
    async with AsyncExitStack() as outside, serving(big, write_timeout=5.0) as here:
        stream = await outside.enter_async_context(await here.connect())
        await stream.send_all(GET)
        await trio.sleep(0.05)
        # `serving` has cancelled the server and seen that it ended, with the client still there


# Drain.


async def test_a_drain_lets_requests_end_and_then_closes() -> None:
    release = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await respond(send)

    async with serving(app) as here, await here.connect() as stream, await here.connect() as idle:
        await stream.send_all(GET)
        await trio.sleep(0.05)
        outcome: list[bool] = []
        async with trio.open_nursery() as nursery:

            async def drain() -> None:
                outcome.append(await here.server.drain(5.0))

            nursery.start_soon(drain)
            assert await is_closed(idle)
            with pytest.raises(OSError, match="all attempts to connect"):
                await here.connect()
            release.set()
            answer = await read_answer(stream)
            assert answer.endswith(b"hello")
            assert b"connection: close" in answer.lower()
            assert await is_closed(stream)
        assert outcome == [True]


# Caps.


async def test_a_drain_that_lingers_answers_one_more_request_of_an_idle_connection_as_its_last() -> None:
    async with serving(hello) as here, await here.connect() as busy, await here.connect() as silent:
        await busy.send_all(GET)
        await read_answer(busy)
        drained: list[bool] = []

        async def drain() -> None:
            drained.append(await here.server.drain(5.0, linger=0.5))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            await trio.sleep(0.1)
            await busy.send_all(GET)
            answer = await read_answer(busy)
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"connection: close" in answer.lower()
            assert not await is_closed(silent, within=0.1)
            await busy.aclose()
            assert await is_closed(silent)
        assert drained == [True]


async def test_a_request_that_waits_behind_an_answer_begun_before_the_drain_does_not_hold_it_up() -> None:
    """That answer's head could not say `Connection: close` yet; the client has the next request to repeat."""
    begun, go = trio.Event(), trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        begun.set()
        await go.wait()
        await send({"type": "http.response.body", "body": b"hello"})

    async with serving(app) as here, await here.connect() as stream, trio.open_nursery() as nursery:
        await stream.send_all(GET + GET)
        await begun.wait()
        drained: list[bool] = []

        async def drain() -> None:
            drained.append(await here.server.drain(5.0))

        nursery.start_soon(drain)
        await trio.sleep(0.05)
        go.set()
        assert (await read_answer(stream)).endswith(b"hello")
        assert await is_closed(stream)
        await until(lambda: bool(drained))
        assert drained == [True]


async def test_more_connections_than_the_cap_are_closed_at_once() -> None:
    async with serving(hello, max_connections=2) as here:
        async with await here.connect() as one, await here.connect() as two, await here.connect() as three:
            assert await is_closed(three)
            for stream in (one, two):
                await stream.send_all(GET)
                assert (await read_answer(stream)).endswith(b"hello")
        await until(lambda: here.server.connections == 0)
        assert (await here.ask(GET)).endswith(b"hello")


async def test_more_connections_from_one_address_than_its_cap_are_closed_at_once() -> None:
    async with serving(hello, max_connections_per_address=1) as here, await here.connect() as one:
        await one.send_all(GET)
        await read_answer(one)
        async with await here.connect() as two:
            assert await is_closed(two)
        other = socket.socket()
        other.bind(("127.0.0.2", 0))
        other.setblocking(False)
        with trio.socket.from_stdlib_socket(other) as elsewhere:
            await elsewhere.connect(("127.0.0.1", here.port))
            stream = trio.SocketStream(elsewhere)
            await stream.send_all(GET)
            assert (await read_answer(stream)).endswith(b"hello")


# Lifespan.


async def returns(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await respond(send)


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await respond(send)


async def reads_and_returns(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        return await respond(send)
    await receive()
    return None


@pytest.mark.parametrize("app", [returns, raises, reads_and_returns])
async def test_an_app_without_a_lifespan_is_served_all_the_same(app: Any) -> None:
    async with serving(app, lifespan=True) as here:
        assert (await here.ask(GET)).endswith(b"hello")
        with trio.fail_after(2):
            assert await here.server.drain(1.0)


async def test_a_lifespan_begins_before_and_ends_after_the_requests() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            seen.append(f"request of {scope['state']['name']}")
            return await respond(send)
        while True:
            message = await receive()
            seen.append(message["type"])
            scope["state"]["name"] = "weir"
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return None

    async with serving(app, lifespan=True) as here:
        await here.ask(GET)
        await here.server.drain(1.0)
    assert seen == ["lifespan.startup", "request of weir", "lifespan.shutdown"]


async def test_an_app_that_says_it_cannot_start_is_not_served() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    sockets = open_sockets(["127.0.0.1:0"])
    with sockets[0], pytest.RaisesGroup(pytest.RaisesExc(LifespanError, match="no database"), flatten_subgroups=True):
        await Server("test", app, sockets, Metrics(), lifespan=True).serve()


async def test_an_app_that_does_not_shut_down_holds_up_no_end() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await trio.sleep_forever()

    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            await nursery.start(Lifespan(app, "test", {}, shutdown_timeout=0.1).run)
            nursery.cancel_scope.cancel()


async def test_an_app_that_raises_after_its_start_is_a_fault() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise RuntimeError("a bug")

    with trio.fail_after(2), pytest.RaisesGroup(RuntimeError, flatten_subgroups=True):
        await Lifespan(app, "test", {}).run()


# Sockets.


def test_an_address_in_use_is_named() -> None:
    with open_sockets(["127.0.0.1:0"])[0] as first, pytest.raises(BindError, match="it is in use") as caught:
        open_sockets(["127.0.0.1:0", address_of(first)])
    assert "127.0.0.1:" in str(caught.value)


@pytest.mark.parametrize(
    ("bind", "message"),
    [
        ("192.0.2.1:0", "no interface of this machine"),
        ("no.such.host.invalid:80", "no known host"),
        ("localhost", "host:port"),
        ("localhost:http", "host:port"),
        ("localhost:99999", "host:port"),
        ("unix:/no/such/folder/s", "No such file"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_named(bind: str, message: str) -> None:
    with pytest.raises(BindError, match=message) as caught:
        open_sockets([bind])
    assert bind in str(caught.value)


def test_a_socket_file_is_for_its_owner_alone_and_a_stale_one_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with open_sockets([f"unix:{path}"])[0] as first:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert address_of(first) == f"unix:{path}"
        with pytest.raises(BindError, match="in use"):
            open_sockets([f"unix:{path}"])
    with open_sockets([f"unix:{path}"])[0]:
        pass
    path.unlink()
    path.write_text("somebody's file")
    with pytest.raises(BindError, match="in use"):
        open_sockets([f"unix:{path}"])
    assert path.read_text() == "somebody's file"


async def test_it_serves_a_socket_file_too(tmp_path: Path) -> None:
    sockets = open_sockets([f"unix:{tmp_path}/s"])
    with sockets[0]:
        async with trio.open_nursery() as nursery:
            await nursery.start(Server("test", hello, sockets, Metrics()).serve)
            async with await trio.open_unix_socket(f"{tmp_path}/s") as stream:
                await stream.send_all(GET)
                assert (await read_answer(stream)).endswith(b"hello")
            nursery.cancel_scope.cancel()
