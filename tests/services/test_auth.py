"""The Auth Service: RFC 6749 §4.4 and §5.2, RFC 7662, RFC 7009."""

import base64
from typing import Any

import pytest

from actors.authenticator.messages import Introspect, Principal
from actors.cache_manager.messages import ABSENT, TOKEN_VALIDATION, Load
from actors.runtime import Reject
from backends.ports.entities import Key, Refused, StoreUnavailable
from gateway.request import Response
from gateway.services.answers import Absent
from gateway.services.auth import writes
from gateway.services.auth.records import digest
from gateway.services.events import Cause
from tests.services.fakes import FORM, NOW, World, document, header

GRANT = {"grant_type": "client_credentials"}


def cause(api: World) -> Cause:
    return Cause("operator", "cli", api.now(), (api.new_id(), api.new_id(), api.new_id()))


def client(api: World, id: str = "robot", scopes: tuple[str, ...] = ("users:read", "users:write")) -> None:
    api.store.commit(writes.create_client(id, "A robot", scopes, f"{id}-secret", cause(api)))


def basic(id: str, secret: str) -> tuple[bytes, bytes]:
    return (b"authorization", b"Basic " + base64.b64encode(f"{id}:{secret}".encode()))


async def post(api: World, rest: str, form: dict[str, str], id: str = "robot") -> Response:
    return await api.call("oauth", "POST", rest, form=form, headers=[basic(id, f"{id}-secret")], subject=None)


async def granted(api: World, id: str = "robot", **form: str) -> str:
    answer = await post(api, "/token", GRANT | form, id)
    assert answer.status == 200, answer.body
    token: str = document(answer)["access_token"]
    return token


async def principal_of(api: World, token: str) -> Principal | None:
    found: Principal | None = await api.system.ref("oauth").ask(Introspect(digest(token)), timeout=60)
    return found


async def test_a_client_gets_a_token_that_is_stored_as_a_digest_alone(api: World) -> None:
    client(api)
    answer = await post(api, "/token", GRANT | {"scope": "users:read"})
    granted = document(answer)
    token = granted.pop("access_token")
    assert granted == {"token_type": "Bearer", "expires_in": 3600, "scope": "users:read"}
    assert header(answer, b"cache-control") == b"no-store"
    assert token.startswith("weir_")
    assert len(token) >= 48
    stored = api.store.entities[Key("token", digest(token))]
    assert stored.expires_at == NOW + 3600
    everything = b"".join(entity.body + entity.id.encode() for entity in api.store.entities.values())
    everything += b"".join(event.data for event in api.store.events)
    assert token.encode() not in everything
    assert b"robot-secret" not in everything
    found = await principal_of(api, token)
    assert found == Principal("robot", frozenset({"users:read"}), "robot", NOW + 3600, digest(token))
    assert (await api.audit_trail())[-1] == ("token.issue", f"token/{digest(token)[:16]}", "ok", 200)


async def test_without_a_scope_it_gets_all_that_the_client_has(api: World) -> None:
    client(api)
    answer = await api.call(
        "oauth", "POST", "/token", form=GRANT | {"client_id": "robot", "client_secret": "robot-secret"}, subject=None
    )
    assert document(answer)["scope"] == "users:read users:write"


ERRORS: list[tuple[dict[str, str], int, str]] = [
    ({}, 400, "invalid_request"),
    ({"grant_type": ""}, 400, "invalid_request"),
    ({"grant_type": "password"}, 400, "unsupported_grant_type"),
    (GRANT | {"scope": "users:read admin"}, 400, "invalid_scope"),
    (GRANT | {"scope": "users:read  users:write"}, 400, "invalid_scope"),
    (GRANT | {"scope": 'a"b'}, 400, "invalid_scope"),
    (GRANT | {"client_secret": "robot-secret"}, 400, "invalid_request"),
    (GRANT | {"client_id": "another"}, 400, "invalid_request"),
]


@pytest.mark.parametrize(("form", "status", "error"), ERRORS)
async def test_errors_are_those_of_the_rfc(api: World, form: dict[str, str], status: int, error: str) -> None:
    client(api)
    answer = await post(api, "/token", form)
    assert (answer.status, document(answer)["error"]) == (status, error)
    assert header(answer, b"cache-control") == b"no-store"
    assert header(answer, b"content-type") == b"application/json"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [basic("robot", "wrong")],
        [basic("nobody", "robot-secret")],
        [basic("", "")],
        [basic("é\0", "x")],
        [(b"authorization", b"Basic !!!")],
        [(b"authorization", b"Basic cm9ib3Q=")],
        [(b"authorization", b"Basic \xff")],
        [(b"authorization", b"Basic /w==")],
        [(b"authorization", b"Bearer x")],
    ],
)
@pytest.mark.parametrize("rest", ["/token", "/introspect", "/revoke"])
async def test_who_is_no_client_is_told_so_in_one_way(
    api: World, rest: str, headers: list[tuple[bytes, bytes]]
) -> None:
    client(api)
    answer = await api.call("oauth", "POST", rest, form=GRANT | {"token": "x"}, headers=headers, subject=None)
    assert (answer.status, document(answer)["error"]) == (401, "invalid_client")
    assert (header(answer, b"www-authenticate") or b"").startswith(b"Basic realm=")
    assert (await api.audit_trail())[-1][2:] == ("denied", 401)


async def test_credentials_may_be_percent_encoded_within_basic(api: World) -> None:
    client(api, "a~b")
    answer = await api.call(
        "oauth", "POST", "/token", form=GRANT, headers=[basic("a%7Eb", "a%7Eb-secret")], subject=None
    )
    assert answer.status == 200


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"grant_type=client_credentials", [(b"content-type", b"application/json")]),
        (b"grant_type=client_credentials", []),
        (b"grant_type=client_credentials&grant_type=client_credentials", [FORM]),
        (b"grant_type", [FORM]),
        (b"grant_type=%ff", [FORM]),
        (b"\xff=\xff", [FORM]),
        (b"&".join(b"a%d=1" % n for n in range(100)), [FORM]),
    ],
)
async def test_forms_are_read_strictly(api: World, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    client(api)
    sent = [*headers, basic("robot", "robot-secret")]
    answer = await api.call("oauth", "POST", "/token", body=body, headers=sent, subject=None)
    assert (answer.status, document(answer)["error"]) == (400, "invalid_request")


async def test_parameters_in_the_url_are_refused(api: World) -> None:
    client(api)
    answer = await api.call("oauth", "POST", "/token", form=GRANT, query="client_secret=x", subject=None)
    assert (answer.status, document(answer)["error"]) == (400, "invalid_request")


async def test_introspection_tells_everything_of_an_active_token_and_nothing_of_another(api: World) -> None:
    client(api)
    client(api, "other")
    token = await granted(api, scope="users:read")
    answer = await post(api, "/introspect", {"token": token}, "other")
    assert document(answer) == {
        "active": True,
        "scope": "users:read",
        "client_id": "robot",
        "sub": "robot",
        "token_type": "Bearer",
        "exp": int(NOW + 3600),
        "iat": int(NOW),
    }
    assert document(await post(api, "/introspect", {"token": "weir_unknown"})) == {"active": False}
    api.time += 3600
    assert document(await post(api, "/introspect", {"token": token})) == {"active": False}
    assert await principal_of(api, token) is None
    assert document(await post(api, "/introspect", {}))["error"] == "invalid_request"


async def test_a_revoked_token_is_evicted_before_the_answer(api: World) -> None:
    client(api)
    token = await granted(api)
    cache = api.system.ref("cache_manager")
    assert (await cache.ask(Load(TOKEN_VALIDATION, digest(token)), timeout=60)).subject == "robot"
    answer = await post(api, "/revoke", {"token": token, "token_type_hint": "whatever"})
    assert (answer.status, answer.body) == (200, b"")
    assert await cache.ask(Load(TOKEN_VALIDATION, digest(token)), timeout=60) is ABSENT
    assert api.events("cache.invalidate") == [("cache.invalidate", {"keys": [["token_validation", digest(token)]]})]
    assert (await post(api, "/revoke", {"token": token})).status == 200, "an unknown token is no error"


async def test_a_client_may_not_revoke_the_tokens_of_another(api: World) -> None:
    client(api)
    client(api, "other")
    token = await granted(api)
    answer = await post(api, "/revoke", {"token": token}, "other")
    assert (answer.status, document(answer)["error"]) == (400, "unauthorized_client")
    assert await principal_of(api, token) is not None


async def test_the_tokens_of_a_client_end_with_it_and_do_not_come_back(api: World) -> None:
    client(api)
    token = await granted(api)
    api.store.commit(writes.delete_client("robot", cause(api)))
    assert await principal_of(api, token) is None
    api.time += 1
    client(api)
    assert await principal_of(api, token) is None
    assert await principal_of(api, await granted(api)) is not None


async def test_the_operators_tokens_need_no_client(api: World) -> None:
    record = api.store.commit(writes.issue_token("alice", ["a", "b", "a"], 60, "weir_x", cause(api)))
    assert (record.subject, record.scopes, record.expires_at) == ("alice", ("a", "b"), NOW + 60)
    assert await principal_of(api, "weir_x") == Principal(
        "alice", frozenset({"a", "b"}), "", NOW + 60, digest("weir_x")
    )
    assert api.store.commit(writes.revoke_token(digest("weir_x"), cause(api))) is True
    assert api.store.commit(writes.revoke_token(digest("weir_x"), cause(api))) is False


async def test_writes_refuse_what_cannot_be(api: World) -> None:
    client(api)
    with pytest.raises(Refused) as refused:
        client(api)
    assert refused.value.error == writes.ClientExists("robot")
    with pytest.raises(Refused) as refused:
        api.store.commit(writes.delete_client("nobody", cause(api)))
    assert refused.value.error == Absent("client", "nobody")
    with pytest.raises(Refused) as refused:
        api.store.commit(writes.issue_token("nobody", [], 60, "t", cause(api), client_id="nobody"))
    assert refused.value.error == Absent("client", "nobody")


@pytest.mark.parametrize(
    "arguments",
    [("", [], 60.0), ("a\n", [], 60.0), ("x" * 201, [], 60.0), ("a", [], 0.0), ("a", ['"'], 60.0), ("a", [""], 60.0)],
)
async def test_a_token_that_cannot_be_is_a_value_error(api: World, arguments: Any) -> None:
    subject, scopes, ttl = arguments
    with pytest.raises(ValueError, match=r"."):
        writes.issue_token(subject, scopes, ttl, "t", cause(api))


async def test_a_store_that_is_away_says_nothing_about_a_token(api: World) -> None:
    client(api)
    api.store.fail = StoreUnavailable("away")
    with pytest.raises(Reject) as refused:
        await principal_of(api, "weir_x")
    assert isinstance(refused.value.error, StoreUnavailable)
    answer = await post(api, "/token", GRANT)
    assert answer.status == 503
