"""Bodies that pass through in parts, in both directions, and WebSockets."""

from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gateway.problem import ProblemError
from gateway.proxy.limits import ProxyLimits
from gateway.proxy.reader import BadAnswer
from gateway.proxy.transport import TooSlow
from gateway.request import ClientGone
from tests.gateway.proxying import (
    FakeWire,
    Hangup,
    Peer,
    asked,
    forward,
    hang,
    proxy,
    refused_with,
    said,
    through,
    to,
    upstream,
)

BIG = 1 << 20


# Down.


async def test_a_small_answer_is_passed_on_whole() -> None:
    async with upstream(said(b"200 OK", body=b"x" * 65536)) as peer:
        answer = await forward(through(wire := FakeWire()), peer.url)
    assert (len(answer.body), answer.sent, wire.started) == (65536, False, None)


async def test_a_small_answer_whose_body_comes_later_is_passed_on_whole() -> None:
    async def in_two(peer: Peer, head: bytes) -> None:
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        await trio.sleep(0.02)
        await peer.say(b"abcdef")

    async with upstream(in_two) as peer:
        answer = await forward(through(FakeWire()), peer.url)
    assert (answer.body, answer.sent) == (b"abcdef", False)


async def test_a_large_answer_is_streamed_with_its_length_and_its_connection_kept() -> None:
    async with upstream(said(b"200 OK", b"X-A: 1", body=b"x" * BIG), said(b"200 OK")) as peer:
        with proxy(peer.url) as target:
            wire = FakeWire()
            answer = await target.handle(through(wire), to())
            assert (answer.status, answer.sent, answer.body) == (200, True, b"")
            assert wire.started is not None
            assert (b"content-length", b"%d" % BIG) in wire.started.headers
            assert b"".join(wire.written) == b"x" * BIG
            await target.handle(asked(), to())
        assert peer.connections == 1


async def test_an_answer_of_unknown_length_is_passed_on_part_by_part() -> None:
    wire = FakeWire()

    async def slow(peer: Peer, head: bytes) -> None:
        await peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (b"one", b"two"):
            await peer.say(b"3\r\n%b\r\n" % part)
            await wire.got(part)
        await peer.say(b"0\r\n\r\n")

    async with upstream(slow) as peer:
        answer = await forward(through(wire), peer.url)
    assert (answer.sent, wire.written) == (True, [b"one", b"two"])
    assert wire.started is not None
    assert wire.started.headers == [(b"via", b"1.1 weir")]


async def test_a_streamed_answer_may_end_with_its_connection() -> None:
    async with upstream(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * BIG) as peer:
        await forward(through(wire := FakeWire()), peer.url)
    assert b"".join(wire.written) == b"x" * BIG


async def test_a_client_that_takes_nothing_holds_the_upstream_up_and_no_memory() -> None:
    sent = 0

    async def endless(peer: Peer, head: bytes) -> None:
        nonlocal sent
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * BIG))
        for _ in range(64):
            await peer.say(b"x" * BIG)
            sent += 1

    wire = FakeWire()
    wire.taking = trio.Event()
    async with upstream(endless) as peer, trio.open_nursery() as nursery:
        nursery.start_soon(forward, through(wire), peer.url)
        await wait_all_tasks_blocked(0.2)
        assert wire.started is not None
        assert sent < 32, "the kernel's buffers, and not all of it"
        wire.taking.set()
    assert sum(map(len, wire.written)) == 64 * BIG
    assert max(map(len, wire.written)) <= 65536


async def test_an_answer_cut_short_after_its_head_is_not_taken_for_whole() -> None:
    async def half(peer: Peer, head: bytes) -> None:
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG + b"x" * 100_000)
        raise Hangup

    async with upstream(half) as peer:
        with pytest.raises(BadAnswer, match="within its answer"):
            await forward(through(FakeWire()), peer.url)


async def test_an_answer_that_turns_to_nonsense_is_not_taken_for_whole() -> None:
    async def turn(peer: Peer, head: bytes) -> None:
        await peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await wire.got(b"abc")
        await peer.say(b"zz\r\n")
        await peer.request()

    wire = FakeWire()
    async with upstream(turn) as peer:
        with pytest.raises(BadAnswer):
            await forward(through(wire), peer.url)


async def test_an_answer_that_stalls_is_cut() -> None:
    async def stall(peer: Peer, head: bytes) -> None:
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nabc" % BIG)
        await trio.sleep_forever()

    async with upstream(stall) as peer:
        with pytest.raises(TooSlow):
            await forward(through(FakeWire()), peer.url, limits=ProxyLimits(idle=0.05))


async def test_a_client_that_leaves_ends_a_stream_that_says_nothing() -> None:
    async def quiet(peer: Peer, head: bytes) -> None:
        await peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await wire.got(b"abc")
        wire.gone.set()
        assert await peer.request() == b"", "the proxy closes"

    wire = FakeWire()
    async with upstream(quiet) as peer:
        with pytest.raises(ClientGone):
            await forward(through(wire), peer.url)


async def test_a_client_that_leaves_ends_a_stream() -> None:
    wire = FakeWire()
    wire.gone.set()
    async with upstream(said(b"200 OK", body=b"x" * BIG)) as peer:
        with pytest.raises(ClientGone):
            await forward(through(wire), peer.url)


# Up.


async def test_a_small_body_is_sent_whole() -> None:
    async def take(peer: Peer, head: bytes) -> None:
        assert await peer.body(6) == b"abcdef"
        await peer.say(said(b"200 OK"))

    async with upstream(take) as peer:
        await forward(through(FakeWire([b"abc", b"def"], length=6), "POST"), peer.url)
    assert b"content-length: 6\r\n" in peer.heard[0]


async def test_a_large_body_is_streamed_with_its_length() -> None:
    async def take(peer: Peer, head: bytes) -> None:
        assert await peer.body(BIG) == b"x" * BIG
        await peer.say(said(b"201 Created", body=b"made"))

    parts = [b"x" * 65536] * 16
    async with upstream(take, said(b"200 OK")) as peer:
        with proxy(peer.url) as target:
            answer = await target.handle(through(FakeWire(parts, length=BIG), "POST"), to())
            assert (answer.status, answer.body) == (201, b"made")
            await target.handle(asked(), to())
        assert peer.connections == 1
    assert b"content-length: %d\r\n" % BIG in peer.heard[0]


async def test_a_body_of_unknown_length_is_streamed_in_chunks() -> None:
    async def take(peer: Peer, head: bytes) -> None:
        assert await peer.until(b"0\r\n\r\n") == b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        await peer.say(said(b"200 OK"))

    async with upstream(take) as peer:
        await forward(through(FakeWire([b"abc", b"de"]), "POST"), peer.url)
    assert b"transfer-encoding: chunked\r\n" in peer.heard[0]
    assert b"content-length" not in peer.heard[0]


async def test_a_body_that_is_refused_at_its_beginning_reaches_nobody() -> None:
    async with upstream() as peer:
        wire = FakeWire([ProblemError(413, "too large")], length=BIG)
        assert await refused_with(through(wire, "POST"), peer.url) == 413
        assert peer.connections == 0


async def test_a_body_that_is_refused_in_its_midst_is_not_taken_for_whole() -> None:
    seen = b""

    async def take(peer: Peer, head: bytes) -> None:
        nonlocal seen
        while data := await peer.stream.receive_some():
            seen += data
        raise Hangup

    async with upstream(take) as peer:
        wire = FakeWire([b"abc", ProblemError(413, "too large")])
        assert await refused_with(through(wire, "POST"), peer.url) == 413
        await wait_all_tasks_blocked(0.02)
    assert b"0\r\n\r\n" not in seen


async def test_a_client_that_leaves_within_its_body_is_nobodys_failure() -> None:
    async with upstream(hang) as peer:
        with proxy(peer.url) as target:
            with pytest.raises(ClientGone):
                await target.handle(through(FakeWire([b"abc", ClientGone()]), "POST"), to())
            assert target._origins[0].health.failures == 0


async def test_a_slow_upload_is_not_waited_for_by_the_answers_deadline() -> None:
    async def slowly() -> None:
        await trio.sleep(0.06)

    async def take(peer: Peer, head: bytes) -> None:
        await peer.until(b"0\r\n\r\n")
        await peer.say(said(b"200 OK", body=b"x"))

    wire = FakeWire([b"a", b"b", b"c"])
    wire.before_part = slowly
    async with upstream(take) as peer:
        answer = await forward(through(wire, "POST"), peer.url, limits=ProxyLimits(response=0.1))
    assert answer.body == b"x"


async def test_after_a_streamed_upload_the_answers_deadline_holds() -> None:
    async with upstream(hang) as peer:
        wire = FakeWire([b"a", b"b", b"c"])
        assert await refused_with(through(wire, "POST"), peer.url, limits=ProxyLimits(response=0.05)) == 504


async def test_an_upstream_that_takes_no_body_holds_the_client_up() -> None:
    given = 0

    async def count() -> None:
        nonlocal given
        await trio.lowlevel.checkpoint()
        given += 1

    async def later(peer: Peer, head: bytes) -> None:
        await release.wait()
        for _ in range(512):
            await peer.body(65536 + 9)
        await peer.until(b"0\r\n\r\n")
        await peer.say(said(b"200 OK"))

    release = trio.Event()
    wire = FakeWire([b"x" * 65536] * 512)
    wire.before_part = count
    async with upstream(later) as peer, trio.open_nursery() as nursery:
        nursery.start_soon(forward, through(wire, "POST"), peer.url)
        await wait_all_tasks_blocked(0.2)
        assert given < 256
        release.set()


async def test_an_answer_before_the_bodys_end_is_the_answer() -> None:
    async def forever() -> None:
        if len(wire.parts) < 2:
            await trio.sleep_forever()

    async def refuse(peer: Peer, head: bytes) -> None:
        await peer.say(said(b"413 Content Too Large", b"Connection: close", body=b"no"))
        raise Hangup

    wire = FakeWire([b"a", b"b", b"c"])
    wire.before_part = forever
    async with upstream(refuse) as peer:
        answer = await forward(through(wire, "POST"), peer.url)
    assert (answer.status, answer.body) == (413, b"no")


async def test_both_directions_stream_at_once() -> None:
    wire = FakeWire([b"one", b"two"])

    async def after_the_echo() -> None:
        if wire.parts == [b"two"]:
            await wire.got(b"one")

    async def echo(peer: Peer, head: bytes) -> None:
        await peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(2):
            await peer.body(3)
            part = await peer.body(5)
            await peer.say(b"3\r\n" + part)
        await peer.until(b"0\r\n\r\n")
        await peer.say(b"0\r\n\r\n")

    wire.before_part = after_the_echo
    async with upstream(echo) as peer:
        await forward(through(wire, "POST"), peer.url)
    assert b"".join(wire.written) == b"onetwo"


# WebSockets.

ASKS = (
    (b"connection", b"keep-alive, Upgrade"), (b"upgrade", b"WebSocket"), (b"sec-websocket-key", b"k"),
    (b"sec-websocket-version", b"13"),
)  # fmt: skip
SWITCHING = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: a\r\n\r\n"


async def test_a_websocket_is_tunnelled_until_the_client_ends() -> None:
    async def echo(peer: Peer, head: bytes) -> None:
        await peer.say(SWITCHING + b"hello")
        while data := await peer.stream.receive_some():
            await peer.say(b"<" + data + b">")
        raise Hangup

    wire = FakeWire()
    async with upstream(echo) as peer, trio.open_nursery() as nursery:
        nursery.start_soon(forward, through(wire, "GET", *ASKS), peer.url)
        assert await wire.from_proxy.receive() == b"hello"
        await wire.to_proxy.send(b"ping")
        assert await wire.from_proxy.receive() == b"<ping>"
        wire.to_proxy.close()
    head = peer.heard[0].lower()
    for sent in (b"connection: upgrade", b"upgrade: websocket", b"sec-websocket-key: k", b"x-weir-subject: alice"):
        assert sent + b"\r\n" in head
    assert wire.switched is not None
    assert wire.switched.headers == [
        (b"sec-websocket-accept", b"a"),
        (b"via", b"1.1 weir"),
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
    ]


async def test_a_connection_that_was_a_websocket_carries_no_request() -> None:
    async def echo(peer: Peer, head: bytes) -> None:
        await peer.say(SWITCHING)
        await peer.stream.receive_some()

    async with upstream(echo, said(b"200 OK", body=b"x")) as peer:
        with proxy(peer.url) as target:
            wire = FakeWire()
            wire.to_proxy.close()
            await target.handle(through(wire, "GET", *ASKS), to())
            assert target._origins[0].describe()["connections"] == 0
            assert (await target.handle(asked(), to())).body == b"x"


async def test_a_websocket_ends_with_its_upstream() -> None:
    async def bye(peer: Peer, head: bytes) -> None:
        await peer.say(SWITCHING)
        raise Hangup

    async with upstream(bye) as peer:
        answer = await forward(through(FakeWire(), "GET", *ASKS), peer.url)
    assert (answer.status, answer.sent) == (101, True)


async def test_a_websocket_in_which_nobody_speaks_ends() -> None:
    async def silent(peer: Peer, head: bytes) -> None:
        await peer.say(SWITCHING)
        await trio.sleep_forever()

    async with upstream(silent) as peer:
        answer = await forward(through(FakeWire(), "GET", *ASKS), peer.url, limits=ProxyLimits(tunnel_idle=0.05))
    assert answer.status == 101


async def test_a_websocket_in_which_somebody_speaks_goes_on() -> None:
    async def echo(peer: Peer, head: bytes) -> None:
        await peer.say(SWITCHING)
        while data := await peer.stream.receive_some():
            await peer.say(data)

    wire = FakeWire()
    async with upstream(echo) as peer, trio.open_nursery() as nursery:
        nursery.start_soon(partial(forward, through(wire, "GET", *ASKS), peer.url, limits=ProxyLimits(tunnel_idle=0.5)))
        for _ in range(4):
            await trio.sleep(0.2)
            await wire.to_proxy.send(b"ping")
            assert await wire.from_proxy.receive() == b"ping"
        wire.to_proxy.close()


async def test_a_websocket_that_the_upstream_refuses_is_an_answer_like_any_other() -> None:
    async with upstream(said(b"403 Forbidden", body=b"no")) as peer:
        answer = await forward(through(FakeWire(), "GET", *ASKS), peer.url)
    assert (answer.status, answer.body) == (403, b"no")


async def test_where_the_client_cannot_switch_the_upstream_is_not_asked_to() -> None:
    async with upstream(said(b"200 OK")) as peer:
        await forward(through(FakeWire(switches=False), "GET", *ASKS), peer.url)
    assert b"upgrade" not in peer.heard[0].lower()


async def test_a_switch_that_nobody_asked_for_is_a_bad_gateway() -> None:
    async with upstream(SWITCHING) as peer:
        assert await refused_with(through(FakeWire()), peer.url) == 502
