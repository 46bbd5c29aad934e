"""The `users` service: reads from the cache, writes with their events, refusals that say what is wrong."""

from typing import Any

import pytest
import trio

from backends.ports.entities import Key, StoreUnavailable
from tests.services.fakes import World, document, header

ADA = {"name": "Ada", "email": "ada@example.org", "bio": "Numbers"}
NOBODY = "/01970000-0000-7000-8000-ffffffffffff"


async def created(api: World, **changes: Any) -> dict[str, Any]:
    answer = await api.call("users", "POST", json=ADA | changes)
    assert answer.status == 201, answer.body
    user: dict[str, Any] = document(answer)
    return user


async def test_a_created_user_is_shown_as_it_is_stored(api: World) -> None:
    answer = await api.call("users", "POST", json={"name": "Ada", "email": "ada@example.org"})
    user = document(answer)
    assert answer.status == 201
    assert header(answer, b"location") == f"/users/{user['id']}".encode()
    assert header(answer, b"etag") == b'"1"'
    assert user == {
        "id": user["id"],
        "name": "Ada",
        "email": "ada@example.org",
        "bio": "",
        "version": 1,
        "created_at": "2026-02-02T02:40:00.000Z",
        "updated_at": "2026-02-02T02:40:00.000Z",
    }
    read = await api.call("users", "GET", f"/{user['id']}")
    assert (read.status, read.body) == (200, answer.body)
    assert api.store.entities[Key("user", user["id"])].body == answer.body


async def test_a_second_read_asks_no_database_and_both_are_audited(api: World) -> None:
    user = await created(api)
    for _ in range(2):
        assert (await api.call("users", "GET", f"/{user['id']}")).status == 200
    assert api.store.reads == [Key("user", user["id"])]
    await api.call("users", "GET", NOBODY)
    name = f"user/{user['id']}"
    assert await api.audit_trail() == [
        ("user.create", name, "ok", 201),
        ("user.read", name, "ok", 200),
        ("user.read", name, "ok", 200),
        ("user.read", f"user{NOBODY}", "failed", 404),
    ]


async def test_a_client_reads_its_own_write_at_once(api: World) -> None:
    user = await created(api)
    path = f"/{user['id']}"
    await api.call("users", "GET", path)
    api.time += 1
    changed = await api.call("users", "PATCH", path, json={"bio": "Engines"})
    assert document(changed) == user | {"bio": "Engines", "version": 2, "updated_at": "2026-02-02T02:40:01.000Z"}
    assert (await api.call("users", "GET", path)).body == changed.body
    assert (await api.call("users", "DELETE", path)).status == 204
    assert (await api.call("users", "GET", path)).status == 404


async def test_a_write_whose_outcome_is_unknown_evicts_all_the_same(api: World) -> None:
    user = await created(api)
    path = f"/{user['id']}"
    await api.call("users", "GET", path)
    api.store.lose = True
    answer = await api.call("users", "PATCH", path, json={"bio": "Engines"})
    assert (answer.status, header(answer, b"retry-after")) == (503, b"1")
    assert document(await api.call("users", "GET", path))["bio"] == "Engines"


async def test_every_write_carries_its_events(api: World) -> None:
    user = await created(api)
    path = f"/{user['id']}"
    put = document(await api.call("users", "PUT", path, json={"name": "Ada L", "email": "ada@example.org"}))
    await api.call("users", "DELETE", path)
    common = {"kind": "user", "id": user["id"], "subject": "alice"}
    assert api.events("entity.changed") == [
        ("user.created", common | {"version": 1, "entity": user, "previous": None}),
        ("user.updated", common | {"version": 2, "entity": put, "previous": user}),
        ("user.deleted", common | {"version": 3, "entity": None, "previous": put}),
    ]
    assert put["bio"] == "", "PUT replaces: what is left out is gone"
    evicted = ("cache.invalidate", {"keys": [["user_profile", user["id"]]]})
    assert api.events("cache.invalidate") == [evicted] * 3
    assert {event.key for event in api.store.events if event.topic != "audit"} == {user["id"]}
    assert len({event.id for event in api.store.events}) == 9


@pytest.mark.parametrize(
    ("tag", "status"), [(b'"1"', 304), (b'W/"1"', 304), (b'"0", "1"', 304), (b"*", 304), (b'"2"', 200), (b"1", 200)]
)
@pytest.mark.parametrize("cached", [True, False])
async def test_if_none_match(api: World, tag: bytes, status: int, cached: bool) -> None:
    user = await created(api)
    if cached:
        await api.call("users", "GET", f"/{user['id']}")
    answer = await api.call("users", "GET", f"/{user['id']}", headers=[(b"if-none-match", tag)])
    assert answer.status == status
    assert header(answer, b"etag") == b'"1"'
    assert (answer.body == b"") == (status == 304)


@pytest.mark.parametrize("tag", [b'"2"', b'W/"1"', b"1", b""])
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_a_write_to_another_version_is_refused_and_changes_nothing(api: World, method: str, tag: bytes) -> None:
    user = await created(api)
    answer = await api.call("users", method, f"/{user['id']}", json=ADA, headers=[(b"if-match", tag)])
    assert (answer.status, header(answer, b"etag")) == (412, b'"1"')
    assert document(await api.call("users", "GET", f"/{user['id']}")) == user
    assert len(api.store.events) == 3
    refused = [entry for entry in await api.audit_trail() if entry[3] == 412]
    assert [entry[1:] for entry in refused] == [(f"user/{user['id']}", "failed", 412)]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "GET", "HEAD"])
@pytest.mark.parametrize("rest", [NOBODY, "/x", "/" + NOBODY[1:].upper(), "/%00", "/é"])
async def test_an_absent_user_is_404_whatever_its_id_looks_like(api: World, method: str, rest: str) -> None:
    answer = await api.call("users", method, rest, json=ADA, headers=[(b"if-match", b"*")])
    assert answer.status == 404
    assert document(answer)["request_id"] == "r1"


@pytest.mark.parametrize(
    ("method", "rest", "allow"),
    [
        ("DELETE", "", b"GET, HEAD, POST"),
        ("PATCH", "", b"GET, HEAD, POST"),
        ("POST", NOBODY, b"DELETE, GET, HEAD, PATCH, PUT"),
    ],
)
async def test_a_wrong_method_is_405_with_those_that_are_possible(
    api: World, method: str, rest: str, allow: bytes
) -> None:
    answer = await api.call("users", method, rest)
    assert (answer.status, header(answer, b"allow")) == (405, allow)


@pytest.mark.parametrize("rest", ["/", "//", "/a/b", "/a/"])
async def test_nothing_else_is_below_users(api: World, rest: str) -> None:
    assert (await api.call("users", "GET", rest)).status == 404


async def test_pages_show_every_user_once_in_order(api: World) -> None:
    ids = [(await created(api, name=f"user {n}"))["id"] for n in range(5)]
    seen, cursor, pages = [], None, 0
    while cursor is not None or not pages:
        page = document(await api.call("users", "GET", query={"limit": 2} | ({"cursor": cursor} if cursor else {})))
        seen += [user["id"] for user in page["items"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert (seen, pages) == (sorted(ids), 3)
    assert (await api.audit_trail())[-1] == ("user.list", "user", "ok", 200)


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=", "limit"),
        ("limit=-1", "limit"),
        ("limit=1e1", "limit"),
        ("limit=%D9%A1", "limit"),
        ("limit=1&limit=1", "limit"),
        ("cursor=!", "cursor"),
        ("cursor=e30", "cursor"),
        ("cursor=IgAi", "cursor"),
    ],
)
async def test_a_bad_parameter_is_named(api: World, query: str, parameter: str) -> None:
    answer = await api.call("users", "GET", query=query)
    assert answer.status == 400
    assert document(answer)["parameter"] == parameter


async def test_a_query_that_is_not_utf8_is_400(api: World) -> None:
    assert (await api.call("users", "GET", query="limit=%ff")).status == 400


async def test_an_idempotency_key_gets_the_first_answer_again(api: World) -> None:
    key = [(b"idempotency-key", b"k-1")]
    first = await api.call("users", "POST", json=ADA, headers=key)
    again = await api.call("users", "POST", json=ADA, headers=key)
    assert (again.status, again.body) == (201, first.body)
    assert header(again, b"location") == header(first, b"location")
    assert header(again, b"idempotency-replayed") == b"true"
    assert [entry[0] for entry in await api.audit_trail()] == ["user.create", "user.create.replayed"]
    assert len(api.events("entity.changed")) == 1


async def test_an_idempotency_key_belongs_to_one_body_one_caller_and_one_day(api: World) -> None:
    key = [(b"idempotency-key", b"k-1")]
    first = await api.call("users", "POST", json=ADA, headers=key)
    other_body = await api.call("users", "POST", json=ADA | {"name": "Eve"}, headers=key)
    assert other_body.status == 422
    other_caller = await api.call("users", "POST", json=ADA, headers=key, subject="bob")
    api.time += 24 * 3600
    next_day = await api.call("users", "POST", json=ADA, headers=key)
    assert len({first.body, other_caller.body, next_day.body}) == 3


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"a\x7fb", b"\xc3\xa9"])
async def test_an_idempotency_key_is_short_printable_ascii(api: World, key: bytes) -> None:
    answer = await api.call("users", "POST", json=ADA, headers=[(b"idempotency-key", key)])
    assert answer.status == 400
    assert not api.store.entities


async def test_many_reads_at_once_ask_the_cache_once_a_batch_and_load_each_user_once(api: World) -> None:
    ids = [(await created(api))["id"] for _ in range(4)]
    answers: list[int] = []

    async def read(id: str) -> None:
        answers.append((await api.call("users", "GET", f"/{id}")).status)

    async with trio.open_nursery() as nursery:
        for id in ids * 10:
            nursery.start_soon(read, id)
    assert answers == [200] * 40
    assert sorted(api.store.reads) == sorted(Key("user", id) for id in ids)


async def test_a_store_that_is_away_is_503_and_a_hit_does_not_notice(api: World) -> None:
    known, other = await created(api), await created(api)
    await api.call("users", "GET", f"/{known['id']}")
    api.store.fail = StoreUnavailable("away")
    for method, rest in [("GET", ""), ("GET", f"/{other['id']}"), ("POST", ""), ("DELETE", f"/{other['id']}")]:
        answer = await api.call("users", method, rest, json=ADA)
        assert (answer.status, header(answer, b"retry-after")) == (503, b"1")
    assert (await api.call("users", "GET", f"/{known['id']}")).status == 200


async def test_a_fault_costs_one_request_and_no_incarnation(api: World) -> None:
    user = await created(api)
    api.store.fail = RuntimeError("nobody foresaw this")
    answer = await api.call("users", "GET", f"/{user['id']}")
    assert answer.status == 500
    assert "nobody foresaw" not in answer.body.decode()
    api.store.fail = None
    assert (await api.call("users", "GET", f"/{user['id']}")).status == 200
    (node,) = [child for child in api.system.snapshot()["children"] if child["id"] == "users"]
    assert node["restarts"] == 0
