"""The whole flow on a real server: limit, token, route, service on cache and database, CORS, audit, consumers."""

import httpx
import pytest

from tests.flow.server import Server, eventually, running

pytestmark = pytest.mark.process

ADA = {"name": "Ada Lovelace", "email": "ada@example.com", "bio": "Wrote the first program."}


@pytest.fixture(scope="module")
def api(server: Server, token: str):
    with server.client(token) as client:
        yield client


def create(api: httpx.Client, **changes: str) -> dict:
    answer = api.post("/users", json=ADA | changes)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_user_is_created_read_changed_and_deleted(api):
    made = api.post("/users", json=ADA)
    assert made.status_code == 201
    user = made.json()
    assert made.headers["location"] == f"/users/{user['id']}"
    assert user.keys() == {"id", "name", "email", "bio", "version", "created_at", "updated_at"}

    read = api.get(f"/users/{user['id']}")
    assert read.json() == user
    assert api.get(f"/users/{user['id']}", headers={"If-None-Match": read.headers["etag"]}).status_code == 304

    changed = api.patch(f"/users/{user['id']}", json={"bio": "Countess"}, headers={"If-Match": read.headers["etag"]})
    assert changed.status_code == 200
    assert api.get(f"/users/{user['id']}").json()["bio"] == "Countess", "a client reads its own write at once"
    assert api.put(f"/users/{user['id']}", json=ADA, headers={"If-Match": read.headers["etag"]}).status_code == 412

    assert api.delete(f"/users/{user['id']}").status_code == 204
    assert api.get(f"/users/{user['id']}").status_code == 404


def test_the_second_read_does_not_ask_the_database(server, api):
    user = create(api)
    api.get(f"/users/{user['id']}")
    before = server.metric("weir_database_queries_total")
    hits = server.metric("weir_cache_reads_total", kind="user_profile", outcome="hit")
    assert api.get(f"/users/{user['id']}").json() == user
    assert server.metric("weir_cache_reads_total", kind="user_profile", outcome="hit") == hits + 1
    assert server.metric("weir_database_queries_total") == before


def test_lists_are_paged_by_opaque_cursors(api):
    ids = {create(api, name=f"Pager {n}")["id"] for n in range(5)}
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = api.get("/users", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["items"]) <= 2
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert ids <= set(seen)
    assert len(seen) == len(set(seen))


def test_the_search_index_follows_changes(api):
    user = create(api, name="Grace Brewster Hopper", bio="Compilers")

    def found(q: str) -> list[str]:
        return [item["id"] for item in api.get("/search", params={"q": q}).json()["items"]]

    eventually(lambda: user["id"] in found("brewst"))
    api.patch(f"/users/{user['id']}", json={"name": "Admiral"})
    eventually(lambda: user["id"] not in found("brewster") and user["id"] in found("admiral"))
    api.delete(f"/users/{user['id']}")
    eventually(lambda: user["id"] not in found("admiral"))


def test_reads_and_writes_are_audited_cache_hits_too(api):
    user = create(api)
    for _ in range(3):
        api.get(f"/users/{user['id']}")

    def actions() -> list[str]:
        page = api.get("/audit", params={"entity": f"user/{user['id']}"}).json()
        return sorted(item["action"] for item in page["items"])

    eventually(lambda: actions() == ["user.create", "user.read", "user.read", "user.read"])


def test_refusals_are_audited_by_the_gateway(server, api):
    with server.client() as anonymous:
        refused = anonymous.get("/users/some-user")
    eventually(
        lambda: any(
            item["outcome"] == "denied" and item["request_id"] == refused.headers["x-request-id"]
            for item in api.get("/audit", params={"entity": "/users/some-user"}).json()["items"]
        )
    )


def test_configuration_values_are_bare_json(api):
    assert api.put("/configuration/theme", json={"dark": True}).status_code == 201
    assert api.put("/configuration/theme", json=[1, 2]).status_code == 200
    assert api.get("/configuration/theme").json() == [1, 2]
    assert api.delete("/configuration/theme").status_code == 204
    assert api.get("/configuration/theme").status_code == 404


def test_an_idempotency_key_returns_the_first_answer_again(api):
    first = api.post("/users", json=ADA, headers={"Idempotency-Key": "once"})
    again = api.post("/users", json=ADA, headers={"Idempotency-Key": "once"})
    assert (again.status_code, again.json()) == (201, first.json())


def test_oauth_clients_get_tokens_that_work_and_can_be_revoked(server):
    made = server.cli("client", "create", "--name", "robot", "--scope", "users:read")
    credentials = dict(line.split("=", 1) for line in made.stdout.split())
    auth = (credentials["client_id"], credentials["client_secret"])
    with server.client() as client:
        granted = client.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=auth)
        assert granted.status_code == 200, granted.text
        bearer = {"Authorization": f"Bearer {granted.json()['access_token']}"}
        assert client.get("/users", headers=bearer).status_code == 200
        assert client.post("/users", json=ADA, headers=bearer).status_code == 403
        known = client.post("/oauth/introspect", data={"token": granted.json()["access_token"]}, auth=auth)
        assert known.json()["active"] is True
        client.post("/oauth/revoke", data={"token": granted.json()["access_token"]}, auth=auth)
        refused = client.get("/users", headers=bearer)
        assert refused.status_code == 401
        assert 'error="invalid_token"' in refused.headers["www-authenticate"]
        wrong = client.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=(auth[0], "guess"))
        assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")


def test_revoking_a_cached_token_acts_at_once(server):
    token = server.token("users:read")
    with server.client(token) as client:
        assert client.get("/users").status_code == 200
        assert server.cli("token", "revoke", token).returncode == 0
        assert client.get("/users").status_code == 401


BAD_REQUESTS = [
    ("no token", {"headers": {"Authorization": ""}}, 401),
    ("another scheme", {"headers": {"Authorization": "Basic eDp5"}}, 401),
    ("a malformed header", {"headers": {"Authorization": "Bearer two words"}}, 400),
    ("an unknown token", {"headers": {"Authorization": "Bearer nobody-knows-me"}}, 401),
    ("broken JSON", {"method": "POST", "path": "/users", "content": b'{"name": '}, 400),
    ("a wrong type", {"method": "POST", "path": "/users", "json": {"name": 1, "email": "a@b.c", "bio": ""}}, 422),
    ("a missing field", {"method": "POST", "path": "/users", "json": {"name": "x"}}, 422),
    ("an unknown field", {"method": "POST", "path": "/users", "json": {**ADA, "admin": True}}, 422),
    ("a bad address", {"method": "POST", "path": "/users", "json": {**ADA, "email": "nope"}}, 422),
    ("not JSON at all", {"method": "POST", "path": "/users", "content": b"x", "type": "text/plain"}, 415),
    ("too large a body", {"method": "POST", "path": "/users", "content": b"x" * (2 << 20)}, 413),
    ("a wrong method", {"method": "PATCH", "path": "/users"}, 405),
    ("an unknown path", {"path": "/nothing/here"}, 404),
    ("an encoded slash", {"path": "/users/a%2Fb"}, 400),
    ("dot segments", {"path": "/users/%2e%2e/audit"}, 400),
    ("a limit out of range", {"path": "/users?limit=0"}, 400),
    ("a forged cursor", {"path": "/users?cursor=%21"}, 400),
]


@pytest.mark.parametrize(
    ("request_", "status"), [row[1:] for row in BAD_REQUESTS], ids=[row[0] for row in BAD_REQUESTS]
)
def test_bad_input_gets_a_problem_that_says_what_is_wrong(server, token, request_, status):
    headers = {"Authorization": f"Bearer {token}"} | request_.get("headers", {})
    headers["Content-Type"] = request_.get("type", "application/json")
    if not headers["Authorization"]:
        del headers["Authorization"]
    with server.client() as client:
        answer = client.request(
            request_.get("method", "GET"), request_.get("path", "/users"), headers=headers,
            content=request_.get("content"), json=request_.get("json"),
        )  # fmt: skip
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]


def test_a_problem_names_the_field(api):
    problem = api.post("/users", json={**ADA, "email": "nope"}).json()
    assert [error["pointer"] for error in problem["errors"]] == ["#/email"]


@pytest.mark.parametrize("q", ['"', "'", "* OR 1", "name:x", "((", "NEAR(a b)", "%", "\\", "é", "a" * 500, "-x", "^"])
def test_any_search_input_is_safe(api, q):
    assert api.get("/search", params={"q": q}).status_code == 200


def test_past_the_limit_comes_429_with_retry_after_and_the_limits_are_announced(tmp_path):
    limits = '[[limits]]\nname = "caller"\nkey = "token"\nquota = 60\nwindow = "1m"\nburst = 5\n'
    with running(tmp_path, limits) as server, server.client(server.token("users:read")) as client:
        answers = [client.get("/users") for _ in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert answers[0].headers["ratelimit-policy"] == '"caller";q=60;w=60'
    assert answers[0].headers["ratelimit"].startswith('"caller";r=4;t=')
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert answers[-1].json()["violated-policies"] == ["caller"]


def test_cors_is_outermost_and_preflight_comes_before_everything(tmp_path):
    with running(tmp_path, '[cors]\norigins = ["https://app.example"]\n') as server, server.client() as client:
        preflight = client.options(
            "/users", headers={"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        )
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        refused = client.get("/users", headers={"Origin": "https://app.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://app.example"
        assert "origin" in refused.headers["vary"].lower()
        stranger = client.get("/users", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in stranger.headers
        assert "origin" in stranger.headers["vary"].lower()


def test_the_api_describes_itself_to_anyone(server):
    with server.client() as client:
        document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert {"/users", "/users/{id}", "/search", "/oauth/token"} <= document["paths"].keys()
