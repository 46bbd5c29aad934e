"""What `/metrics` tells of upstreams: tries by outcome, ejections, what is in hand."""

from collections.abc import AsyncIterator

import pytest
import trio

from actors.metrics import Gauge, Metrics
from gateway.problem import ProblemError
from gateway.proxy.limits import ProxyLimits
from gateway.proxy.origin import Origins
from gateway.proxy.target import UpstreamTarget
from tests.gateway.proxying import NO_RETRIES, Behaviour, FakeWire, Peer, asked, hang, hang_up, said, to, upstream
from tests.gateway.serving import until

HERE = said(b"200 OK", body=b"here")
HALF = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"


async def breaks(peer: Peer, head: bytes) -> None:
    await peer.say(HALF)
    await hang_up(peer, head)


class Measured:
    def __init__(self, limits: ProxyLimits) -> None:
        self.metrics = Metrics()
        self.origins = Origins(limits, metrics=self.metrics)

    def target(self, *urls: str) -> UpstreamTarget:
        return UpstreamTarget([self.origins.of(url) for url in urls], budget=NO_RETRIES)

    def counted(self, name: str) -> dict[tuple[str, ...], float]:
        return next(family for family in self.metrics.families() if family.name == name).values  # type: ignore[union-attr,return-value]

    def in_hand(self) -> dict[tuple[str, ...], float]:
        gauge = next(family for family in self.metrics.families() if isinstance(family, Gauge))
        assert gauge.name == "weir_upstream_in_hand"
        return dict(gauge.collect())


@pytest.fixture
async def measured() -> AsyncIterator[Measured]:
    measured = Measured(ProxyLimits(response=0.1, connect=1.0, max_connections=1, max_pending=0))
    yield measured
    measured.origins.close()


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (HERE, "answered"),
        (said(b"500 Internal Server Error"), "answered"),
        (hang_up, "failed"),
        (b"nonsense\r\n\r\n", "failed"),
        (breaks, "failed"),
        (hang, "timed_out"),
    ],
    ids=["an answer", "a failure status", "hangs up", "nonsense", "breaks off", "hangs"],
)
async def test_a_try_is_counted_by_its_outcome(measured: Measured, behaviour: Behaviour | bytes, outcome: str) -> None:
    async with upstream(behaviour) as peer:
        request = asked()
        request.wire = FakeWire()
        try:
            await measured.target(peer.url).handle(request, to())
        except Exception:
            assert outcome != "answered"
        assert measured.counted("weir_upstream_requests_total") == {(peer.url, outcome): 1}
        assert measured.in_hand() == {(peer.url,): 0}


async def test_what_is_in_hand_and_what_is_one_too_many(measured: Measured) -> None:
    async with upstream(hang) as peer, trio.open_nursery() as nursery:
        target = measured.target(peer.url)
        nursery.start_soon(target.handle, asked(), to())
        await until(lambda: bool(peer.heard))
        assert measured.in_hand() == {(peer.url,): 1}
        with pytest.raises(ProblemError):
            await target.handle(asked(), to())
        assert measured.counted("weir_upstream_requests_total") == {(peer.url, "refused"): 1}
        nursery.cancel_scope.cancel()
    assert measured.counted("weir_upstream_requests_total")[peer.url, "abandoned"] == 1
    assert measured.in_hand() == {(peer.url,): 0}


async def test_ejections_are_counted(measured: Measured) -> None:
    async with upstream(*[hang_up] * 5) as peer:
        target = measured.target(peer.url)
        for _ in range(6):
            with pytest.raises(ProblemError):
                await target.handle(asked(), to())
        assert measured.counted("weir_upstream_ejections_total") == {(peer.url,): 1}
        assert measured.counted("weir_upstream_requests_total") == {(peer.url, "failed"): 5}
