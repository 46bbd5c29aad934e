"""The stages before a target that streams: their deadline, and the end of an answer that is cut short."""

from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock

from actors.router.messages import Resolved, Route
from gateway.pipeline import Target
from gateway.proxy.origin import Origin
from gateway.proxy.target import UpstreamTarget
from gateway.request import Request, Response
from tests.gateway.proxying import LIMITS, FakeWire, Hangup, Peer, upstream
from tests.gateway.support import World, problem_of, request


@dataclass
class Everywhere:
    """*target* is every route's."""

    target: Target

    def of(self, route: Route) -> Target:
        return self.target


class Reads:
    """A target that takes the body part by part and then *thinks* for so many seconds."""

    audited = False
    streams = True

    def __init__(self, thinks: float = 0.0) -> None:
        self.thinks = thinks

    async def handle(self, request: Request, resolved: Resolved) -> Response:
        assert request.wire is not None
        while await request.wire.receive():
            pass
        await trio.sleep(self.thinks)
        return Response(200)


async def sent_slowly(target: Target) -> Response:
    """The answer to 5 parts of a body, 4 s apart, with a deadline of 10 s."""

    async def wait() -> None:
        await trio.sleep(4)

    wire = FakeWire([b"x"] * 5)
    wire.before_part = wait
    asked = request("/open", method="POST")
    asked.wire = wire
    return await World(request_timeout=10.0, targets=Everywhere(target)).pipeline.handle(asked)


async def test_a_slow_upload_is_not_the_answers_time(autojump_clock: MockClock) -> None:
    assert (await sent_slowly(Reads(thinks=9))).status == 200


async def test_after_the_upload_the_deadline_holds(autojump_clock: MockClock) -> None:
    assert problem_of(await sent_slowly(Reads(thinks=11)))["status"] == 504


@pytest.mark.parametrize("ends", [True, False])
async def test_an_answer_cut_short_by_the_upstream_is_cut_for_the_client(ends: bool) -> None:
    async def say(peer: Peer, head: bytes) -> None:
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * (100_000 if ends else 99_999))
        raise Hangup

    async with upstream(say) as peer:
        wire = FakeWire()
        origin = Origin(peer.url, LIMITS)
        world = World(targets=Everywhere(UpstreamTarget([origin])))
        asked = request("/open")
        asked.wire = wire
        answer = await world.pipeline.handle(asked)
        origin.close_idle()
    assert (answer.status, answer.sent, wire.was_cut) == (200, True, not ends)
    assert wire.started is not None
    assert (b"x-request-id", b"req-1") in wire.started.headers
    assert len(world.publisher.audits) == 1
