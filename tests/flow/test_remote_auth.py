"""The whole server with its Auth Service elsewhere: down, slow, lying, and back."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.engines.auth_service import AuthServiceServer, Reply, hangs, http, says
from tests.flow.load import Connection
from tests.flow.server import GENEROUS, Server, eventually

pytestmark = pytest.mark.process

SECRET = "hush-secret"
AUTH = """
[auth]
introspection_url = "{url}"
introspection_client_id = "weir"
introspection_client_secret = "{secret}"
introspection_timeout = "{timeout}"
introspection_concurrency = 8
[log]
level = "debug"
"""


@pytest.fixture
def auth() -> Iterator[AuthServiceServer]:
    service = AuthServiceServer().start()
    yield service
    service.stop()


@contextmanager
def weir(folder: Path, auth: AuthServiceServer, timeout: str = "500ms") -> Iterator[Server]:
    server = Server(folder, AUTH.format(url=auth.url, secret=SECRET, timeout=timeout) + GENEROUS)
    server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            assert server.stop() == 0
        log = server.log.read_text()
        assert "Traceback" not in log
        assert SECRET not in log
        assert not [token for token in {*auth.questions, *auth.tokens} if token in log], "no log knows a token"


def readyz(server: Server) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{server.admin_url}/readyz").json()
    return answer


def read(server: Server, token: str) -> httpx.Response:
    return httpx.get(
        f"{server.url}/users/nobody", headers={"authorization": f"Bearer {token}"}, verify=False, timeout=30
    )


def asked(auth: AuthServiceServer, token: str) -> int:
    return auth.questions.count(token)


def is_away(server: Server) -> bool:
    return server.metric("weir_auth_service_up") == 0


def is_back(server: Server) -> bool:
    return server.metric("weir_auth_service_up") == 1


def test_a_token_is_asked_about_once_and_its_scopes_count(tmp_path: Path, auth: AuthServiceServer) -> None:
    token = auth.issue("token-of-ann-1", scope="users:read")
    with weir(tmp_path, auth) as server, server.client(token) as client:
        assert [client.get("/users/nobody").status_code for _ in range(5)] == [404] * 5
        assert asked(auth, token) == 1
        assert client.post("/users", json={"name": "a", "email": "a@b.c", "bio": ""}).status_code == 403
        refused = read(server, "token-of-nobody")
        assert refused.status_code == 401
        assert 'error="invalid_token"' in refused.headers["www-authenticate"]
        assert server.metric("weir_introspections_total", outcome="active") == 1
        assert server.metric("weir_introspection_seconds_count", outcome="active") == 1
        assert readyz(server)["status"] == "ready"
        with server.admin() as admin:
            tree = admin.get("/tree").text
        assert token not in tree
        assert SECRET not in tree


def test_what_is_elsewhere_is_said_to_be_elsewhere(tmp_path: Path, auth: AuthServiceServer) -> None:
    with weir(tmp_path, auth) as server:
        for path in ("/oauth/token", "/oauth/introspect", "/oauth/revoke"):
            answer = httpx.post(server.url + path, data={"grant_type": "client_credentials"}, auth=("a", "b"))
            assert (answer.status_code, "another Auth Service" in answer.json()["detail"]) == (404, True)
        document = httpx.get(f"{server.url}/openapi.json").json()
        assert not [path for path in document["paths"] if path.startswith("/oauth")]
        commands = (
            ("token", "issue", "--subject", "s"),
            ("token", "revoke", "t"),
            ("client", "list"),
            ("client", "create", "--name", "n"),
            ("client", "delete", "c"),
        )
        for command in commands:
            told = server.cli(*command)
            assert (told.returncode, told.stdout) == (2, "")
            assert auth.url in told.stderr
            assert told.stderr.count("\n") == 1
        server.stop()
        assert auth.url in server.cli("token", "issue", "--subject", "s").stderr


LIES: dict[str, Reply] = {
    "html": says(http("<html>Welcome!</html>")),
    "redirect": says(http("", "302 Found", "Location: /login")),
    "error": says(http("{}", "500 Internal Server Error")),
    "too long": says(http(b" " * 10_000_000)),
    "wrong type": says(http('{"active": "true", "sub": "ann"}')),
    "no subject": says(http('{"active": true}')),
    "expired": says(http('{"active": true, "sub": "ann", "exp": 1}')),
    "everybody": says(http('{"active": true, "sub": "root", "scope": "users:read"}')),
}


def outage(auth: AuthServiceServer, how: str) -> None:
    if how == "down":
        auth.stop()
    elif how == "hung":
        auth.reply = hangs
    else:
        auth.reply = LIES[how]


def over(auth: AuthServiceServer, how: str) -> None:
    if how == "down":
        auth.start()
    else:
        auth.reply = None


@pytest.mark.parametrize("how", ["down", "hung", "html", "redirect", "error", "too long", "wrong type"])
def test_cached_tokens_go_on_and_others_are_told_to_come_back(
    tmp_path: Path, auth: AuthServiceServer, how: str
) -> None:
    cached, fresh = auth.issue("token-that-is-cached"), [auth.issue(f"token-that-is-fresh-{n}") for n in range(30)]
    with weir(tmp_path, auth) as server:
        assert read(server, cached).status_code == 404
        outage(auth, how)
        for token in fresh:
            answer = read(server, token)
            assert (answer.status_code, answer.headers.get("retry-after")) == (503, "1")
            assert "www-authenticate" not in answer.headers
            assert read(server, cached).status_code == 404
        # The first few cost their callers a question; of the others the service has heard nothing.
        assert [asked(auth, token) for token in fresh[3:]] == [0] * 27
        assert server.metric("weir_introspections_total", outcome="spared") >= 27
        state = readyz(server)
        assert (state["status"], auth.url in state["reasons"][0]) == ("degraded", True)
        over(auth, how)
        eventually(lambda: is_back(server), within=20)
        assert [read(server, token).status_code for token in fresh] == [404] * 30
        assert readyz(server)["status"] == "ready"


@pytest.mark.parametrize("how", ["no subject", "expired"])
def test_an_answer_that_contradicts_itself_lets_nobody_in(tmp_path: Path, auth: AuthServiceServer, how: str) -> None:
    good = auth.issue("token-that-is-good")
    with weir(tmp_path, auth) as server:
        outage(auth, how)
        for _ in range(10):
            assert read(server, "token-that-is-odd").status_code == 503
        assert asked(auth, "token-that-is-odd") == 10, "nothing of it was cached"
        assert readyz(server)["status"] == "degraded"
        over(auth, how)
        assert read(server, good).status_code == 404
        assert readyz(server)["status"] == "ready"


def test_one_that_lets_everybody_in_lets_nobody_in(tmp_path: Path, auth: AuthServiceServer) -> None:
    auth.reply = LIES["everybody"]
    with weir(tmp_path, auth) as server:
        eventually(lambda: is_away(server), within=20)
        assert read(server, "token-of-a-stranger").status_code == 503
        assert "nobody was given" in readyz(server)["reasons"][0]


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_credentials_that_are_refused_are_one_clear_line(tmp_path: Path, auth: AuthServiceServer, status: str) -> None:
    auth.reply = says(http("{}", status))
    with weir(tmp_path, auth) as server:
        eventually(lambda: is_away(server), within=20)
        assert [read(server, f"token-{n}-of-somebody").status_code for n in range(5)] == [503] * 5
        assert "auth.introspection_client_id" in readyz(server)["reasons"][0]
        lines = [line for line in server.log_lines() if line["event"] == "auth_service.away"]
        assert [line["level"] for line in lines] == ["error"]
        auth.reply = None
        eventually(lambda: is_back(server), within=20)


def test_a_server_starts_without_it_and_learns_of_it(tmp_path: Path, auth: AuthServiceServer) -> None:
    auth.stop()
    token = auth.issue("token-of-later")
    with weir(tmp_path, auth) as server:
        assert httpx.get(f"{server.url}/openapi.json").status_code == 200
        assert read(server, token).status_code == 503
        auth.start()
        eventually(lambda: readyz(server)["status"] == "ready", within=20)
        assert read(server, token).status_code == 404


async def test_no_stampede_when_it_comes_back(tmp_path: Path, auth: AuthServiceServer) -> None:
    """A hundred clients with twenty tokens ask without a pause, through an outage and its end."""
    tokens = [auth.issue(f"token-of-the-crowd-{n}") for n in range(20)]
    statuses: list[tuple[float, int]] = []

    async def insist(server: Server, token: str) -> None:
        connection = Connection(server.port, token)
        try:
            while True:
                status, _ = await connection.request("GET", "/users/nobody")
                statuses.append((trio.current_time(), status))
                await trio.sleep(0.01)
        finally:
            await connection.aclose()

    with weir(tmp_path, auth, timeout="2s") as server:
        await trio.to_thread.run_sync(eventually, lambda: is_back(server), 20)
        auth.stop()
        async with trio.open_nursery() as nursery:
            for n in range(100):
                nursery.start_soon(insist, server, tokens[n % 20])
            await trio.sleep(3)
            assert is_away(server)
            auth.questions.clear()
            auth.most, auth.delay = 0, 0.05
            auth.start()
            await trio.to_thread.run_sync(eventually, lambda: is_back(server), 20)
            back = trio.current_time()
            await trio.sleep(2)
            nursery.cancel_scope.cancel()
    assert {status for _, status in statuses} == {404, 503}
    assert all(status == 404 for at, status in statuses if at > back + 1)
    assert set(tokens) <= set(auth.questions)
    assert len(auth.questions) <= 30, "each token about once, and a probe or two"
    assert auth.most <= 8


def test_another_weir_can_be_the_auth_service(tmp_path: Path) -> None:
    for name in ("issuer", "gateway"):
        (tmp_path / name).mkdir()
    issuer = Server(tmp_path / "issuer")
    issuer.start()
    made = issuer.cli("client", "create", "--name", "gateway")
    id, secret = (line.partition("=")[2] for line in made.stdout.split())
    config = f'[auth]\nintrospection_url = "{issuer.url}/oauth/introspect"\nintrospection_client_id = "{id}"\n'
    gateway = Server(tmp_path / "gateway", f'{config}introspection_client_secret = "{secret}"\n{GENEROUS}')
    gateway.start()
    try:
        token = issuer.token("users:read")
        assert read(gateway, token).status_code == 404
        assert read(gateway, "made-up").status_code == 401
        issuer.kill9()
        assert read(gateway, token).status_code == 404
        assert read(gateway, "made-up-too").status_code == 503
    finally:
        assert gateway.stop() == 0
        if issuer.process is not None and issuer.process.poll() is None:
            issuer.stop()
