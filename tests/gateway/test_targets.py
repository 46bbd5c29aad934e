"""What a route leads to: a service, an application in this process. Upstreams: `test_proxy*.py`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from actors.router.messages import Resolved, Route
from actors.runtime import Child, Mailbox, Supervisor, SupervisorGaveUp, open_system
from gateway.asgi_target import AsgiApp, AsgiLifespan, AsgiTarget, TargetError, load_app
from gateway.asgi_types import Receive, Scope, Send
from gateway.problem import ProblemError
from gateway.proxy.limits import ProxyLimits
from gateway.proxy.origin import Origins
from gateway.proxy.target import UpstreamTarget
from gateway.request import Request, Response
from gateway.services.messages import ServiceRequest
from gateway.targets import ServiceTarget, Targets
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
    targets = Targets({"users": FakeActor(print)}, {app.name: app}, Origins(ProxyLimits()))
    urls = ("http://127.0.0.1:1",)
    routes = [Route("/users", "service:users"), Route("/app", app.name), Route("/up", urls)]
    targets.check(routes)
    found = [targets.of(route) for route in routes]
    assert [type(target) for target in found] == [ServiceTarget, AsgiTarget, UpstreamTarget]
    assert targets.of(Route("/other", urls)) is found[2]  # so that taking turns goes on over a reload
    assert targets.of(Route("/other", urls, balance="round_robin")) is not found[2]
    assert [target.audited for target in found] == [False, True, True]


async def test_a_route_to_nothing_is_a_configuration_error_that_names_both() -> None:
    targets = Targets({"users": FakeActor(print)}, {}, Origins(ProxyLimits()))
    with pytest.raises(TargetError, match="route /orders: there is no target service:orders"):
        targets.check([Route("/orders", "service:orders")])


async def test_a_route_to_a_new_application_needs_a_restart() -> None:
    """Its lifespan is a child of the tree, which does not change while it runs."""
    targets = Targets({}, {}, Origins(ProxyLimits()))
    with pytest.raises(TargetError, match=f"route /app: {APPS}:echo is a new application: restart to have it"):
        targets.check([Route("/app", f"{APPS}:echo")])


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
