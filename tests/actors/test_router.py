"""Routing: the table's rules, and the actor that holds it."""

from functools import partial

import pytest
from actor_helpers import child
from hypothesis import given
from hypothesis import strategies as st

from actors.metrics import Metrics
from actors.router.actor import Router
from actors.router.messages import InsufficientScope, NoRoute, NotAuthenticated, Reload, Resolve, Resolved, Route
from actors.router.table import RouteTable, RouteTableRef, refusal, required_scope
from actors.runtime import ActorCrashed, Reject
from actors.runtime.testing import OpenSystem

USERS = Route("/users", "service:users", scopes={"GET": "users:read", "*": "users:write"})
ME = Route("/users/me", "service:me")
TABLE = RouteTable([USERS, ME])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/users", (USERS, "")),
        ("/users/", (USERS, "/")),
        ("/users/7/posts", (USERS, "/7/posts")),
        ("/users/me", (ME, "")),
        ("/users/me/x", (ME, "/x")),
        ("/users/men", (USERS, "/men")),
        ("/usersx", None),
        ("/user", None),
        ("/", None),
    ],
)
def test_the_longest_prefix_by_whole_segments_wins(path: str, expected: tuple[Route, str] | None) -> None:
    assert TABLE.lookup(path) == expected


def test_the_root_takes_what_nobody_else_does() -> None:
    root = Route("/", "http://127.0.0.1:9000")
    table = RouteTable([root, USERS])
    assert table.lookup("/x/y") == (root, "/x/y")
    assert table.lookup("/") == (root, "/")
    assert table.lookup("/users/7") == (USERS, "/7")


segments = st.text("ab", min_size=0, max_size=2)
paths = st.lists(segments, max_size=5).map(lambda parts: "/" + "/".join(parts))


@given(st.sets(paths.map(lambda p: p.rstrip("/") or "/"), max_size=8), paths)
def test_lookup_agrees_with_trying_every_prefix(prefixes: set[str], path: str) -> None:
    table = RouteTable([Route(prefix, "service:x") for prefix in sorted(prefixes)])
    bare = [prefix.rstrip("/") for prefix in prefixes]
    fitting = [prefix for prefix in bare if path == prefix or path.startswith(prefix + "/")]
    found = table.lookup(path)
    if not fitting:
        assert found is None
    else:
        assert found is not None
        route, rest = found
        assert route.prefix.rstrip("/") == max(fitting, key=len)
        assert route.prefix.rstrip("/") + rest == path
        assert rest == "" or rest.startswith("/")


@pytest.mark.parametrize("prefixes", [["/a", "/a"], ["/a", "/a/"], ["a"], [""]])
def test_a_table_that_cannot_be_is_refused(prefixes: list[str]) -> None:
    with pytest.raises(ValueError, match="prefix"):
        RouteTable([Route(prefix, "service:x") for prefix in prefixes])


def test_head_needs_what_get_needs_and_star_is_for_the_rest() -> None:
    scopes = [required_scope(USERS, method) for method in ("GET", "HEAD", "POST", "OPTIONS")]
    assert scopes == ["users:read", "users:read", "users:write", "users:write"]
    assert required_scope(Route("/x", "service:x", scopes={"GET": "r"}), "POST") is None
    assert required_scope(ME, "GET") is None


OPTIONAL = Route("/o", "service:o", auth="optional", scopes={"POST": "o:write"})
OPEN = Route("/p", "service:p", auth="none", scopes={"*": "p:all"})
NOBODY, READER = None, frozenset({"users:read"})


@pytest.mark.parametrize(
    ("route", "method", "scopes", "expected"),
    [
        (USERS, "GET", READER, None),
        (USERS, "GET", NOBODY, NotAuthenticated()),
        (USERS, "PUT", READER, InsufficientScope("users:write")),
        (ME, "GET", frozenset(), None),
        (OPTIONAL, "GET", NOBODY, None),
        (OPTIONAL, "GET", frozenset(), None),
        (OPTIONAL, "POST", NOBODY, NotAuthenticated()),
        (OPTIONAL, "POST", READER, InsufficientScope("o:write")),
        (OPEN, "GET", NOBODY, None),
    ],
)
def test_who_may(route: Route, method: str, scopes: frozenset[str] | None, expected: object) -> None:
    assert refusal(route, method, scopes) == expected


async def test_the_actor_resolves_or_says_why_not(actor_system: OpenSystem) -> None:
    async with actor_system(child("router", partial(Router, RouteTableRef(TABLE), Metrics()))) as system:
        asks = [
            Resolve("GET", "/users/7", READER),
            Resolve("GET", "/nowhere", READER),
            Resolve("GET", "/users", None),
            Resolve("POST", "/users", READER),
        ]
        found, *refused = await system.ask_all("router", *asks)
    assert found == Resolved(USERS, "/7")
    assert [r.error for r in refused] == [NoRoute("/nowhere"), NotAuthenticated(), InsufficientScope("users:write")]


async def test_a_reload_is_seen_by_all_and_outlives_a_crash(actor_system: OpenSystem) -> None:
    table = RouteTableRef(TABLE)
    async with actor_system(child("router", partial(Router, table, Metrics()))) as system:
        router = system.ref("router")
        await router.ask(Reload((ME,)))
        assert table.current.lookup("/users/7") is None
        crashed, resolved = await system.ask_all("router", "poison", Resolve("GET", "/users/me", READER))
        assert isinstance(crashed, ActorCrashed)
        assert resolved == Resolved(ME, "")


async def test_a_reload_that_cannot_be_keeps_the_old_table(actor_system: OpenSystem) -> None:
    table = RouteTableRef(TABLE)
    async with actor_system(child("router", partial(Router, table, Metrics()))) as system:
        with pytest.raises(Reject):
            await system.ref("router").ask(Reload((ME, ME)))
    assert table.current is TABLE
