"""Upstreams that misbehave: what the caller is told, who gets the request instead, and who gets no more."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors.breaker import HealthPolicy
from gateway.problem import ProblemError
from gateway.proxy.limits import ProxyLimits
from gateway.proxy.reader import MAX_HEAD
from gateway.proxy.target import UpstreamTarget
from tests.gateway.proxying import (
    NO_RETRIES,
    FakeWire,
    Peer,
    asked,
    forward,
    hang,
    hang_up,
    nobody,
    proxy,
    refused_with,
    said,
    through,
    to,
    upstream,
)

HERE = said(b"200 OK", body=b"here")


# What the caller is told.


async def test_an_upstream_that_is_away_is_a_bad_gateway() -> None:
    assert await refused_with(asked(), await nobody()) == 502


LONG = b"HTTP/1.1 200 OK\r\n" + b"X-A: %b\r\n" % (b"x" * 8000) * 9
NONSENSE = [
    b"nonsense\r\n\r\n",
    b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 700 High\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-A: 1\r\n folded\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX A: 1\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    b"HTTP/1.1 200 OK\r\nContent-Le",
    LONG + b"Content-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * (MAX_HEAD + 1),
    b"HTTP/1.1 100 Continue\r\nX-A: %b\r\n\r\n" % (b"x" * 8000) * 9,
    b"",
]


@pytest.mark.parametrize("answer", NONSENSE)
async def test_an_upstream_that_talks_nonsense_is_a_bad_gateway(answer: bytes) -> None:
    async def say(peer: Peer, head: bytes) -> None:
        await peer.say(answer)
        await peer.stream.send_eof()
        await peer.request()

    async with upstream(say) as peer:
        assert await refused_with(asked(), peer.url) == 502


async def test_an_upstream_that_hangs_up_within_a_small_answer_is_a_bad_gateway() -> None:
    for request in (asked(), through(FakeWire())):
        async with upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nhalf") as peer:
            assert await refused_with(request, peer.url) == 502


async def test_without_a_wire_an_upstream_that_says_too_much_is_a_bad_gateway() -> None:
    limits = ProxyLimits(max_response=1000)
    for body in (b"x" * 1001, b"x" * 200_000):
        async with upstream(said(b"200 OK", body=body)) as peer:
            assert await refused_with(asked(), peer.url, limits=limits) == 502


async def test_an_upstream_that_is_too_slow_is_a_gateway_timeout() -> None:
    async with upstream(hang) as peer:
        assert await refused_with(asked(), peer.url, limits=ProxyLimits(response=0.05)) == 504


async def test_an_answer_before_the_end_of_a_large_request_is_the_answer() -> None:
    async def refuse(peer: Peer, head: bytes) -> None:
        await peer.say(said(b"413 Content Too Large", b"Connection: close", body=b"no"))
        await trio.sleep(0.05)
        await hang_up(peer, head)  # with input unread, so the kernel resets the connection

    async with upstream(refuse) as peer:
        assert (await forward(asked("/o", "POST", b"x" * (32 << 20)), peer.url)).status == 413


async def test_an_upstream_that_takes_no_request_is_a_gateway_timeout() -> None:
    body = b"x" * (32 << 20)
    async with upstream(hang) as peer:
        request = asked("/o", "POST", body)
        assert await refused_with(request, peer.url, limits=ProxyLimits(write=0.05)) == 504


async def test_a_request_that_is_given_up_gives_its_connection_up() -> None:
    async with upstream(hang) as peer:
        with proxy(peer.url) as target:
            with trio.move_on_after(0.05):
                await target.handle(asked(), to())
            assert target._origins[0].describe()["connections"] == 0


# Who gets it instead.


async def test_several_upstreams_take_turns() -> None:
    one, two = said(b"200 OK", body=b"1"), said(b"200 OK", body=b"2")
    async with upstream(one, one) as first, upstream(two) as second:
        with proxy(first.url, second.url) as target:
            assert [(await target.handle(asked(), to())).body for _ in range(3)] == [b"1", b"2", b"1"]


async def test_the_upstream_with_the_fewest_requests_in_hand_is_next() -> None:
    async with upstream(hang, HERE) as busy, upstream(*[HERE] * 3) as idle, trio.open_nursery() as nursery:
        with proxy(busy.url, idle.url) as target:
            nursery.start_soon(target.handle, asked(), to())
            await wait_all_tasks_blocked(0.02)
            for _ in range(3):
                await target.handle(asked(), to())
            assert (len(busy.heard), len(idle.heard)) == (1, 3)
            nursery.cancel_scope.cancel()
            await wait_all_tasks_blocked()
    assert busy.behaviours


async def test_an_upstream_that_is_away_passes_its_turn_on() -> None:
    away = await nobody()
    async with upstream(*[HERE] * 3) as peer:
        with proxy(away, peer.url) as target:
            for method in ("GET", "POST", "GET"):
                assert (await target.handle(asked(method=method), to())).body == b"here"


async def test_a_body_that_was_not_sent_is_sent_to_the_next_one() -> None:
    async def take(peer: Peer, head: bytes) -> None:
        await peer.until(b"0\r\n\r\n")
        await peer.say(HERE)

    async with upstream(take) as peer:
        answer = await forward(through(FakeWire([b"abc", b"def"]), "POST"), await nobody(), peer.url)
    assert answer.body == b"here"


@pytest.mark.parametrize("behaviour", [hang_up, b"nonsense\r\n\r\n"])
async def test_a_request_that_may_be_sent_twice_is(behaviour: object) -> None:
    async with upstream(behaviour) as first, upstream(HERE) as second:  # type: ignore[arg-type]
        assert (await forward(asked(), first.url, second.url)).body == b"here"
    assert len(first.heard) == len(second.heard) == 1


async def test_an_upstream_that_took_the_request_keeps_it() -> None:
    async with upstream(hang_up) as first, upstream() as second:
        assert await refused_with(asked(method="POST"), first.url, second.url) == 502
    assert second.heard == [], "it may have been acted on"


async def test_a_body_that_is_gone_cannot_be_sent_again() -> None:
    async def half(peer: Peer, head: bytes) -> None:
        await peer.body(8)
        await hang_up(peer, head)

    async with upstream(half) as first, upstream() as second:
        request = through(FakeWire([b"abc", b"def"]), "PUT")
        assert await refused_with(request, first.url, second.url) == 502
    assert second.heard == []


async def test_retries_have_a_budget() -> None:
    async with upstream(hang_up) as first, upstream() as second:
        assert await refused_with(asked(), first.url, second.url, budget=NO_RETRIES) == 502
    assert second.heard == []


# A kept connection that the upstream has closed.


async def test_a_connection_closed_while_idle_is_not_used() -> None:
    async def then_close(peer: Peer, head: bytes) -> None:
        await peer.say(HERE)
        await hang_up(peer, head)

    async with upstream(then_close, HERE) as peer:
        with proxy(peer.url) as target:
            await target.handle(asked(), to())
            await trio.sleep(0.02)
            await target.handle(asked(method="POST"), to())
    assert [head.split()[0] for head in peer.heard] == [b"GET", b"POST"]


async def test_a_connection_closed_as_the_request_comes_costs_an_idempotent_one_nothing() -> None:
    async with upstream(HERE, hang_up, HERE) as peer:
        with proxy(peer.url, budget=NO_RETRIES) as target:
            for _ in range(2):
                assert (await target.handle(asked(), to())).body == b"here"
            assert target._origins[0].health.failures == 0
    assert len(peer.heard) == 3


async def test_a_connection_closed_as_the_request_comes_may_have_taken_it() -> None:
    async with upstream(HERE, hang_up) as peer:
        with proxy(peer.url) as target:
            await target.handle(asked(), to())
            with pytest.raises(ProblemError) as caught:
                await target.handle(asked(method="POST"), to())
    assert caught.value.status == 502


async def test_a_stale_connection_makes_room_for_the_new_one() -> None:
    async def slow(peer: Peer, head: bytes) -> None:
        await release.wait()
        await peer.say(HERE)

    async with upstream(slow, slow, hang_up, HERE) as peer:
        with proxy(peer.url, limits=ProxyLimits(max_connections=2, max_pending=0)) as target:
            release = trio.Event()
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(target.handle, asked(), to())
                await wait_all_tasks_blocked(0.02)
                release.set()
            assert (await target.handle(asked(), to())).body == b"here"


async def test_a_new_connection_that_is_closed_is_a_failure() -> None:
    async with upstream(hang_up, HERE) as peer:
        assert await refused_with(asked(), peer.url) == 502


async def test_a_connection_that_was_idle_for_long_is_not_used() -> None:
    async with upstream(HERE, HERE) as peer:
        with proxy(peer.url, limits=ProxyLimits(idle_connection=0.01)) as target:
            await target.handle(asked(), to())
            await trio.sleep(0.03)
            await target.handle(asked(), to())
        assert peer.connections == 2


# Who gets no more.


async def test_an_upstream_that_keeps_failing_is_ejected_and_comes_back_by_a_probe() -> None:
    failing = [hang_up] * 2
    async with upstream(*failing, HERE, HERE) as peer:
        with proxy(peer.url, health=HealthPolicy(failures=2, base=0.1)) as target:
            for _ in range(2):
                with pytest.raises(ProblemError):
                    await target.handle(asked(), to())
            with pytest.raises(ProblemError) as caught:
                await target.handle(asked(), to())
            assert (caught.value.status, dict(caught.value.headers)[b"retry-after"]) == (503, b"1")
            assert len(peer.heard) == 2
            assert target._origins[0].describe()["health"] == "ejected"
            await trio.sleep(0.12)
            for _ in range(2):
                assert (await target.handle(asked(), to())).status == 200
            assert target._origins[0].describe()["health"] == "healthy"


async def test_a_probe_that_says_nothing_leaves_its_place_to_the_next() -> None:
    async with upstream(hang_up, hang, HERE) as peer:
        with proxy(peer.url, health=HealthPolicy(failures=1, base=0.05)) as target:
            with pytest.raises(ProblemError):
                await target.handle(asked(), to())
            await trio.sleep(0.06)
            with trio.move_on_after(0.05):
                await target.handle(asked(), to())
            assert (await target.handle(asked(), to())).body == b"here"


async def test_while_one_is_ejected_the_others_have_its_requests() -> None:
    away = await nobody()
    async with upstream(*[HERE] * 8) as peer:
        with proxy(away, peer.url, health=HealthPolicy(failures=1, base=60)) as target:
            for _ in range(8):
                await target.handle(asked(), to())
            assert target._origins[0].requests == 1


async def test_a_failure_status_is_an_answer() -> None:
    broken = said(b"500 Internal Server Error")
    async with upstream(*[broken] * 3) as peer:
        with proxy(peer.url, health=HealthPolicy(failures=1)) as target:
            assert [(await target.handle(asked(), to())).status for _ in range(3)] == [500] * 3


# How much it gets at once.


async def test_a_request_waits_for_a_connection_when_there_are_as_many_as_may_be() -> None:
    async def slow(peer: Peer, head: bytes) -> None:
        await trio.sleep(0.02)
        await peer.say(HERE)

    async with upstream(*[slow] * 5) as peer:
        with proxy(peer.url, limits=ProxyLimits(max_connections=1)) as target:
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(target.handle, asked(), to())
        assert (peer.connections, len(peer.heard)) == (1, 5)


async def test_requests_above_the_limit_are_refused_at_once() -> None:
    async with upstream(hang) as peer, trio.open_nursery() as nursery:
        with proxy(peer.url, limits=ProxyLimits(max_connections=1, max_pending=1, pending=60)) as target:
            for _ in range(2):
                nursery.start_soon(target.handle, asked(), to())
            await wait_all_tasks_blocked(0.02)
            assert target._origins[0].describe()["breaker"] == "open"
            with pytest.raises(ProblemError) as caught:
                await target.handle(asked(), to())
            assert (caught.value.status, dict(caught.value.headers)[b"retry-after"]) == (503, b"1")
            nursery.cancel_scope.cancel()
            await wait_all_tasks_blocked()


async def test_a_request_does_not_wait_for_a_connection_for_ever() -> None:
    async with upstream(hang) as peer, trio.open_nursery() as nursery:
        with proxy(peer.url, limits=ProxyLimits(max_connections=1, pending=0.05)) as target:
            nursery.start_soon(target.handle, asked(), to())
            await wait_all_tasks_blocked(0.02)
            with pytest.raises(ProblemError) as caught:
                await target.handle(asked(), to())
            assert caught.value.status == 503
            nursery.cancel_scope.cancel()
            await wait_all_tasks_blocked()


async def test_a_turn_that_comes_to_one_who_has_left_goes_to_the_next() -> None:
    answered = 0

    async def ask(target: UpstreamTarget, scope: trio.CancelScope) -> None:
        nonlocal answered
        with scope:
            await target.handle(asked(), to())
            answered += 1

    async with upstream(HERE, HERE) as peer:
        with proxy(peer.url, limits=ProxyLimits(max_connections=1, pending=60)) as target:
            origin = target._origins[0]
            held = await origin.acquire()
            leaves, stays = trio.CancelScope(), trio.CancelScope()
            async with trio.open_nursery() as nursery:
                for scope in (leaves, stays):
                    nursery.start_soon(ask, target, scope)
                    await wait_all_tasks_blocked(0.01)
                origin.discard(held)
                leaves.cancel()
    assert answered == 1


@pytest.mark.parametrize("kept", [True, False])
async def test_nobody_overtakes_one_who_waits(kept: bool) -> None:
    order: list[str] = []

    async def ask(target: UpstreamTarget, name: str) -> None:
        await target.handle(asked(), to())
        order.append(name)

    async with upstream(*[HERE] * 3) as peer:
        with proxy(peer.url, limits=ProxyLimits(max_connections=1, pending=60)) as target:
            held = await target._origins[0].acquire()
            async with trio.open_nursery() as nursery:
                for name in ("first", "second"):
                    nursery.start_soon(ask, target, name)
                    await wait_all_tasks_blocked(0.01)
                held.reader.complete = held.reader.keep_alive = kept
                target._origins[0].release(held)
                await ask(target, "third")
    assert order == ["first", "second", "third"]
