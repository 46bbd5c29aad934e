"""What a route leads to: a service, an application in this process, an upstream."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from actors.router.messages import Resolved, Route
from actors.runtime import Child, Mailbox, Supervisor, SupervisorGaveUp, open_system
from gateway.asgi_target import AsgiApp, AsgiLifespan, AsgiTarget, TargetError, load_app
from gateway.asgi_types import Receive, Scope, Send
from gateway.problem import ProblemError
from gateway.request import Request, Response
from gateway.services.messages import ServiceRequest
from gateway.targets import ServiceTarget, Targets
from gateway.upstream import UpstreamTarget, open_transport
from tests.gateway import example_apps
from tests.gateway.support import ALICE, FakeActor

APPS = "asgi:tests.gateway.example_apps"


def asked(
    path: str = "/orders/9", method: str = "GET", body: bytes = b"", query: bytes = b"", *headers: tuple[bytes, bytes]
) -> Request:
    sent = [(b"host", b"api.example:8000"), *headers]
    return Request(method, path, query, sent, body, "192.0.2.1", "req-1", peer="192.0.2.1", principal=ALICE)


def to(target: Any = "", rest: str = "/9", auth: str = "required") -> Resolved:
    return Resolved(Route("/orders", target, auth), rest)


# Services.


async def test_a_service_is_asked_with_the_rest_of_the_path() -> None:
    service = FakeActor(lambda message: Response(200, [], b"user"))
    request = asked("/users/7")
    answer = await ServiceTarget(service).handle(request, to(rest="/7"))
    assert answer.body == b"user"
    assert service.asked == [ServiceRequest(request, "/7")]


async def test_a_service_knows_no_head() -> None:
    service = FakeActor(lambda message: Response(200))
    request = asked(method="HEAD")
    await ServiceTarget(service).handle(request, to())
    assert service.asked[0].request.method == "GET"
    assert request.method == "HEAD"


async def test_routes_find_their_targets() -> None:
    app = load_app(f"{APPS}:echo")
    async with open_transport() as transport:
        targets = Targets({"users": FakeActor(print)}, {app.name: app}, transport)
        urls = ("http://127.0.0.1:1",)
        routes = [Route("/users", "service:users"), Route("/app", app.name), Route("/up", urls)]
        targets.check(routes)
        found = [targets.of(route) for route in routes]
        assert [type(target) for target in found] == [ServiceTarget, AsgiTarget, UpstreamTarget]
        assert targets.of(Route("/other", urls)) is found[2]  # so that round robin goes on over a reload
        assert [target.audited for target in found] == [False, True, True]


async def test_a_route_to_nothing_is_a_configuration_error_that_names_both() -> None:
    async with open_transport() as transport:
        targets = Targets({"users": FakeActor(print)}, {}, transport)
        with pytest.raises(TargetError, match="route /orders: there is no target service:orders"):
            targets.check([Route("/orders", "service:orders")])


# Applications.


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("asgi:no.such.module:app", "cannot be imported"),
        (f"{APPS}:nothing", "has no nothing"),
        (f"{APPS}:not_an_app", "no ASGI application"),
        ("asgi:tests.gateway.example_apps", "write it as"),
        ("asgi::app", "write it as"),
    ],
)
def test_an_application_that_cannot_be_loaded_is_named(target: str, message: str) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        load_app(target)
    assert str(caught.value).startswith(target)


def test_an_application_may_be_an_attribute_of_something() -> None:
    assert load_app(f"{APPS}:Holder.app").app is example_apps.echo


async def call(app: Any, request: Request) -> Response:
    return await AsgiTarget(AsgiApp("asgi:test", app)).handle(request, to())


async def test_an_application_is_told_what_the_specification_says() -> None:
    answer = await call(example_apps.echo, asked("/orders/x%20y", "POST", b"body", b"a=1", (b"x-a", b"1")))
    told = eval(answer.body)
    assert (told["method"], told["root_path"], told["path"]) == ("POST", "/orders", "/orders/x y")
    assert (told["raw_path"], told["query_string"], told["body"]) == (b"/orders/x%20y", b"a=1", b"body")
    assert (told["client"], told["server"], told["scheme"]) == (("192.0.2.1", 0), ("api.example", 8000), "http")
    assert (b"x-a", b"1") in told["headers"]
    assert (b"x-weir-subject", b"alice") in told["headers"]
    assert (b"content-length", b"4") in told["headers"]


async def test_an_applications_answer_is_passed_back_without_what_is_ours() -> None:
    answer = await call(example_apps.echo, asked())
    assert answer.status == 200
    assert answer.headers == [(b"content-type", b"text/plain"), (b"via", b"1.1 weir")]


async def test_an_applications_answer_to_head_keeps_its_length_alone() -> None:
    answer = await call(example_apps.echo, asked(method="HEAD"))
    assert answer.body == b""
    assert int(dict(answer.headers)[b"content-length"]) > 0


MISBEHAVING = (
    "raises", "raises_in_a_task", "exits", "says_nothing", "says_half", "says_it_twice",
    "splits_a_header", "names_no_header", "switches_protocols", "invents_a_status",
)  # fmt: skip


@pytest.mark.parametrize("name", MISBEHAVING)
async def test_an_application_that_misbehaves_is_a_500_of_that_request(name: str) -> None:
    with pytest.raises(ProblemError) as caught:
        await call(getattr(example_apps, name), asked())
    assert caught.value.status == 500
    assert "bug" not in caught.value.detail


@asynccontextmanager
async def living(app: AsgiApp) -> AsyncIterator[None]:
    child = Child("app", lambda: AsgiLifespan(app, startup_timeout=0.5, shutdown_timeout=0.5), mailbox=Mailbox(1))
    async with open_system(Supervisor("root", children=[child])):
        yield


async def test_an_applications_lifespan_is_a_child_of_the_tree() -> None:
    app = AsgiApp("asgi:echo", example_apps.echo)
    async with living(app):
        answer = await AsgiTarget(app).handle(asked(), to())
        assert eval(answer.body)["state"] == {"name": "echo"}


async def test_an_application_shuts_down_with_the_tree() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(2):
            seen.append((await receive())["type"])
            await send({"type": seen[-1] + ".complete"})

    async with living(AsgiApp("asgi:app", app)):
        pass
    assert seen == ["lifespan.startup", "lifespan.shutdown"]


async def test_an_application_that_cannot_start_is_a_start_failure() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(SupervisorGaveUp, match="no database"):
        async with living(AsgiApp("asgi:app", app)):
            pytest.fail("it started")


# Upstreams: a server that answers what it is told to, on a real socket.


class Upstream:
    def __init__(self, answers: Sequence[bytes]) -> None:
        self.answers = list(answers)
        self.heard: list[bytes] = []
        self.url = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            heard = b""
            while b"\r\n\r\n" not in heard:
                heard += await stream.receive_some()
            self.heard.append(heard)
            answer = self.answers.pop(0)
            if answer == b"hang":
                await trio.sleep_forever()
            await stream.send_all(answer)


@asynccontextmanager
async def upstream(*answers: bytes) -> AsyncIterator[Upstream]:
    peer = Upstream(answers)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        peer.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.start_soon(trio.serve_listeners, peer.serve, [listener])
        yield peer
        nursery.cancel_scope.cancel()


def said(status: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), b"Connection: close", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def forward(request: Request, *urls: str, auth: str = "required", **options: Any) -> Response:
    async with open_transport() as transport:
        return await UpstreamTarget(urls, transport, **options).handle(request, to(urls, auth=auth))


async def test_an_upstream_gets_the_canonical_path_and_who_calls() -> None:
    async with upstream(said(b"200 OK", body=b"order")) as peer:
        query = b"q=%zz&r=a|b/../c"
        request = asked(
            "/orders/x%20y",
            "GET",
            b"",
            query,
            (b"authorization", b"Bearer t"),
            (b"connection", b"x-mine"),
            (b"x-mine", b"1"),
        )
        answer = await forward(request, peer.url)
    head = peer.heard[0].lower()
    assert peer.heard[0].startswith(b"GET /orders/x%20y?" + query + b" HTTP/1.1\r\n")
    assert b"host: api.example:8000\r\n" in head
    assert b"x-weir-subject: alice\r\n" in head
    assert b"x-weir-scopes: users:read\r\n" in head
    assert b"x-forwarded-for: 192.0.2.1\r\n" in head
    assert b"authorization" not in head
    assert b"x-mine" not in head
    assert b"user-agent" not in head
    assert (answer.status, answer.body) == (200, b"order")


async def test_on_a_route_without_authentication_the_upstream_may_do_its_own() -> None:
    async with upstream(said(b"200 OK")) as peer:
        await forward(asked("/o", "GET", b"", b"", (b"authorization", b"Basic x")), peer.url, auth="none")
    assert b"authorization: basic x" in peer.heard[0].lower()


async def test_a_body_is_framed_anew() -> None:
    async with upstream(said(b"201 Created")) as peer:
        await forward(asked("/o", "POST", b"abc", b"", (b"transfer-encoding", b"chunked")), peer.url)
    assert b"content-length: 3\r\n" in peer.heard[0].lower()
    assert b"transfer-encoding" not in peer.heard[0].lower()


async def test_an_upstreams_answer_comes_back_as_it_is() -> None:
    headers = (
        b"Location: /elsewhere",
        b"Set-Cookie: a=1",
        b"Set-Cookie: b=2",
        b"Server: theirs",
        b"X-Hop: 1",
        b"Connection: x-hop",
    )
    async with upstream(said(b"302 Found", *headers)) as peer:
        answer = await forward(asked(), peer.url)
    assert answer.status == 302
    assert answer.headers == [
        (b"location", b"/elsewhere"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"via", b"1.1 weir"),
    ]


async def test_one_callers_cookies_are_nobody_elses() -> None:
    async with (
        upstream(said(b"200 OK", b"Set-Cookie: session=secret"), said(b"200 OK")) as peer,
        open_transport() as transport,
    ):
        target = UpstreamTarget([peer.url], transport)
        for _ in range(2):
            await target.handle(asked(), to())
    assert b"session" not in peer.heard[1]


async def test_a_compressed_answer_stays_compressed() -> None:
    async with upstream(said(b"200 OK", b"Content-Encoding: gzip", body=b"\x1f\x8bnot really")) as peer:
        assert (await forward(asked(), peer.url)).body == b"\x1f\x8bnot really"


async def test_an_answer_to_head_keeps_its_length() -> None:
    async with upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nConnection: close\r\n\r\n") as peer:
        answer = await forward(asked(method="HEAD"), peer.url)
    assert (b"content-length", b"12345") in answer.headers


async def test_several_upstreams_take_turns() -> None:
    one = upstream(said(b"200 OK", body=b"1"), said(b"200 OK", body=b"1"))
    two = upstream(said(b"200 OK", body=b"2"))
    async with one as first, two as second, open_transport() as transport:
        target = UpstreamTarget([first.url, second.url], transport)
        assert [(await target.handle(asked(), to())).body for _ in range(3)] == [b"1", b"2", b"1"]


async def test_an_upstream_that_is_away_passes_its_turn_on() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    away = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    await listener.aclose()
    async with upstream(*[said(b"200 OK", body=b"here")] * 3) as peer, open_transport() as transport:
        target = UpstreamTarget([away, peer.url], transport)
        assert [(await target.handle(asked(), to())).body for _ in range(3)] == [b"here"] * 3


async def test_an_upstream_that_took_the_request_keeps_it() -> None:
    async with upstream(b"") as first, upstream() as second, open_transport() as transport:
        target = UpstreamTarget([first.url, second.url], transport)
        with pytest.raises(ProblemError):
            await target.handle(asked(method="POST"), to())
        assert second.heard == [], "it may have been acted on"


async def refused_with(request: Request, *urls: str, **options: Any) -> int:
    with pytest.raises(ProblemError) as caught:
        await forward(request, *urls, **options)
    return caught.value.status


async def test_an_upstream_that_is_away_is_a_bad_gateway() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    assert await refused_with(asked(), f"http://127.0.0.1:{port}") == 502


async def test_an_upstream_that_talks_nonsense_is_a_bad_gateway() -> None:
    async with upstream(b"nonsense\r\n\r\n") as peer:
        assert await refused_with(asked(), peer.url) == 502


async def test_an_upstream_that_hangs_up_is_a_bad_gateway() -> None:
    async with upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf") as peer:
        assert await refused_with(asked(), peer.url) == 502


async def test_an_upstream_that_says_too_much_is_a_bad_gateway() -> None:
    async with upstream(said(b"200 OK", body=b"x" * 1001)) as peer:
        assert await refused_with(asked(), peer.url, max_response=1000) == 502


async def test_an_upstream_that_is_too_slow_is_a_gateway_timeout() -> None:
    async with upstream(b"hang") as peer:
        slow = {"connect": 1.0, "read": 0.1, "write": 1.0, "pool": 1.0}
        assert await refused_with(asked(), peer.url, timeouts=slow) == 504
