"""The actor beside each upstream: its checks, the idle connections, and what the tree shows."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from actors.breaker import HealthPolicy
from actors.runtime import Child, Mailbox, Supervisor, System, open_system
from gateway.proxy.actor import Upstream, checked
from gateway.proxy.limits import ProxyLimits
from gateway.proxy.origin import Origin, Origins
from gateway.proxy.target import UpstreamTarget
from tests.gateway.proxying import LIMITS, asked, hang, nobody, said, to, upstream


@asynccontextmanager
async def looked_after(origin: Origin, tick: float = 0.02) -> AsyncIterator[System]:
    """*origin* under its actor, ticking and checking each *tick* s."""
    child = Child("upstream:it", lambda: Upstream(origin, tick=tick, check_every=tick), mailbox=Mailbox(4))
    async with open_system(Supervisor("root", children=[child])) as system:
        yield system


def detail(system: System) -> dict[str, Any]:
    found: dict[str, Any] = system.snapshot()["children"][0]["detail"]
    return found


async def test_the_tree_shows_each_upstream() -> None:
    async with upstream(said(b"200 OK")) as peer:
        origin = Origin(peer.url, LIMITS)
        async with looked_after(origin) as system:
            await UpstreamTarget([origin]).handle(asked(), to())
            shown = detail(system)
            assert (shown["url"], shown["health"], shown["breaker"]) == (peer.url, "healthy", "closed")
            assert (shown["requests"], shown["outstanding"], shown["connections"], shown["idle"]) == (1, 0, 1, 1)


async def test_connections_that_stay_idle_are_closed() -> None:
    async with upstream(said(b"200 OK")) as peer:
        origin = Origin(peer.url, ProxyLimits(idle_connection=0.01))
        async with looked_after(origin) as system:
            await UpstreamTarget([origin]).handle(asked(), to())
            await trio.sleep(0.1)
            assert detail(system)["connections"] == 0


async def test_stopped_it_closes_what_is_idle() -> None:
    async with upstream(said(b"200 OK")) as peer:
        origin = Origin(peer.url, LIMITS)
        async with looked_after(origin):
            await UpstreamTarget([origin]).handle(asked(), to())
        assert origin.describe()["connections"] == 0


async def test_once_it_is_gone_no_connection_is_kept_until_it_is_back() -> None:
    async with upstream(*[said(b"200 OK")] * 2) as peer:
        origin = Origin(peer.url, LIMITS)
        async with looked_after(origin):
            pass
        await UpstreamTarget([origin]).handle(asked(), to())
        assert origin.describe()["connections"] == 0
        async with looked_after(origin):
            await UpstreamTarget([origin]).handle(asked(), to())
            assert origin.describe()["connections"] == 1


async def test_a_check_that_fails_ejects_before_a_request_does_and_one_that_succeeds_lets_it_back() -> None:
    sick, well = said(b"503 Service Unavailable"), said(b"204 No Content")
    async with upstream(*[sick] * 2, *[well] * 1000) as peer:
        origin = Origin(peer.url, LIMITS, policy=HealthPolicy(failures=2, base=60))
        origin.check_path = "/healthz"
        async with looked_after(origin):
            with trio.fail_after(5):
                while origin.health.ejected_until is None:  # noqa: ASYNC110 - it is a value and tells nobody
                    await trio.sleep(0.001)
                while origin.health.ejected_until is not None:  # noqa: ASYNC110
                    await trio.sleep(0.001)
        assert peer.heard[0].startswith(b"GET /healthz HTTP/1.1\r\n")


async def test_what_a_check_says() -> None:
    async def of(*behaviours: Any) -> str | None:
        async with upstream(*behaviours) as peer:
            return await checked(Origin(peer.url, ProxyLimits(connect=0.1)))

    assert await of(said(b"200 OK")) is None
    assert await of(said(b"302 Found")) is None
    assert await of(said(b"500 Broken")) == "its check was answered 500"
    assert await of(b"nonsense\r\n\r\n") == "its check failed: Expected HTTP/, RTSP/ or ICE/"
    assert await of(hang) == "its check took longer than 0.1 s"
    away = await checked(Origin(await nobody(), LIMITS))
    assert away is not None
    assert away.startswith("its check failed")


def test_routes_that_name_the_same_upstream_share_it() -> None:
    origins = Origins(LIMITS, {"http://a": "/healthz"})
    assert origins.of("http://a") is origins.of("http://a")
    assert origins.of("http://a").check_path == "/healthz"
    origins.checks = {"http://a": "", "http://b": "/up"}
    assert [origins.of(url).check_path for url in ("http://a", "http://b")] == ["", "/up"]
