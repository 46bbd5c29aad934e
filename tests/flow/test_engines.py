"""One instance and several on a real Redis, PostgreSQL and Kafka: they are one service."""

import sys
import time
from collections.abc import Callable, Iterator
from statistics import quantiles
from typing import Any

import httpx
import pytest
import trio

from tests.flow.installation import Installation, installed, running
from tests.flow.load import Connection, Outcome, writer
from tests.flow.server import Server, eventually
from tests.flow.test_kill9 import counted

pytestmark = [pytest.mark.process, pytest.mark.engines]

LIMITED = """
[[limits]]
name = "caller"
key = "address"
quota = 10
window = "10s"
burst = {burst}
"""


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    with installed() as made:
        yield made


def user(client: httpx.Client, name: str) -> str:
    made = client.post("/users", json={"name": name, "email": "u@example.com", "bio": ""})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def test_the_flow_of_the_readme(installation: Installation) -> None:
    with installation.instances(1) as (server,), server.client(server.token()) as client:
        id = user(client, "Ada Lovelace")
        first = client.get(f"/users/{id}")
        assert first.json()["name"] == "Ada Lovelace"
        asked = server.metric("weir_database_queries_total")
        assert client.get(f"/users/{id}").json() == first.json()
        assert server.metric("weir_database_queries_total") == asked
        eventually(lambda: [hit["id"] for hit in client.get("/search?q=lovelace").json()["items"]] == [id], 10)
        eventually(lambda: actions(client, f"user/{id}") >= {"user.create", "user.read"}, 10)
        assert client.patch(f"/users/{id}", json={"name": "Ada King"}).json()["version"] == 2
        assert client.get(f"/users/{id}").json()["name"] == "Ada King"
        assert client.delete(f"/users/{id}").status_code == 204
        assert client.get(f"/users/{id}").status_code == 404
        eventually(lambda: client.get("/search?q=king").json()["items"] == [], 10)
        assert server.cli("audit", "verify").returncode == 0


def actions(client: httpx.Client, entity: str) -> set[str]:
    return {item["action"] for item in client.get("/audit", params={"entity": entity}).json()["items"]}


def test_limits_hold_in_sum(installation: Installation) -> None:
    burst = 30
    with installation.instances(3, LIMITED.format(burst=burst)) as servers:
        eventually(lambda: {server.metric("weir_shared_store_instances") for server in servers} == {3.0}, 10)
        began = time.monotonic()
        answers = [httpx.get(f"{servers[n % 3].url}/openapi.json") for n in range(3 * burst)]
        came_back = int(time.monotonic() - began) + 1
        statuses = [answer.status_code for answer in answers]
        assert burst <= statuses.count(200) <= burst + came_back
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) == 3 * burst - statuses.count(200)
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)


async def evicted_after(
    server: Server, token: str, path: str, over: Callable[[int, bytes], bool], cause: Callable[[], Any]
) -> float:
    """How long after *cause* was answered *server* still gave what it had, seconds."""
    connection = Connection(server.port, token)
    try:
        for _ in range(2):  # the second comes from the instance's own memory
            assert not over(*await connection.request("GET", path))
        await cause()
        began = trio.current_time()
        with trio.fail_after(10):
            while not over(*await connection.request("GET", path)):  # noqa: ASYNC110 - another process
                await trio.sleep(0.0005)
        return trio.current_time() - began
    finally:
        await connection.aclose()


def told(what: str, latencies: list[float], record: Callable[[str, object], None]) -> None:
    cuts = quantiles(latencies, n=100)
    line = f"p50 {cuts[49] * 1000:.1f} ms, p99 {cuts[98] * 1000:.1f} ms, most {max(latencies) * 1000:.1f} ms"
    record(what, line)
    sys.stderr.write(f"{what}: {line} ({len(latencies)} times)\n")  # shown by `pytest -s`


async def test_a_write_on_one_evicts_on_the_others(
    installation: Installation, record_property: Callable[[str, object], None]
) -> None:
    with installation.instances(2) as (one, two):
        token = await trio.to_thread.run_sync(one.token)
        with one.client(token) as client:
            ids = [user(client, "version 0") for _ in range(5)]
        writing = Connection(one.port, token)
        latencies = []
        for turn in range(1, 61):
            id, name = ids[turn % 5], f"version {turn}"

            async def write(id: str = id, name: str = name) -> None:
                body = f'{{"name": "{name}", "email": "u@example.com", "bio": ""}}'.encode()
                status, answer = await writing.request("PUT", f"/users/{id}", body)
                assert status == 200, answer

            def is_new(status: int, answer: bytes, name: str = name) -> bool:
                return f'"{name}"'.encode() in answer

            latencies.append(await evicted_after(two, token, f"/users/{id}", is_new, write))
        await writing.aclose()
        told("eviction on the other instance", latencies, record_property)
        assert max(latencies) < 1.0


async def test_a_revoked_token_is_refused_by_the_others(
    installation: Installation, record_property: Callable[[str, object], None]
) -> None:
    with installation.instances(2) as (one, two):
        made = await trio.to_thread.run_sync(one.cli, "client", "create", "--name", "robot", "--scope", "users:read")
        client = dict(line.split("=", 1) for line in made.stdout.split())
        auth = (client["client_id"], client["client_secret"])
        latencies = []
        async with httpx.AsyncClient(base_url=one.url, auth=auth, trust_env=False) as api:
            for _ in range(60):
                granted = await api.post("/oauth/token", data={"grant_type": "client_credentials"})
                token = granted.json()["access_token"]

                async def revoke(token: str = token) -> None:
                    assert (await api.post("/oauth/revoke", data={"token": token})).status_code == 200

                latencies.append(await evicted_after(two, token, "/users/nobody", lambda s, _: s == 401, revoke))
        told("revoke to 401 on the other instance", latencies, record_property)
        assert max(latencies) < 1.0


async def test_one_of_three_is_killed_and_nothing_acknowledged_is_lost(installation: Installation) -> None:
    servers = [installation.instance() for _ in range(3)]
    outcome, killed = Outcome(), Outcome()
    with running(*servers):
        token = await trio.to_thread.run_sync(servers[0].token)
        async with trio.open_nursery() as nursery:
            for number, server in enumerate(servers):
                seen = killed if server is servers[2] else outcome
                for n in range(3):
                    nursery.start_soon(writer, seen, server.port, token, f"three{number} {n}")
            await trio.sleep(1.5)
            servers[2].kill9()
            await trio.sleep(1.5)
            nursery.cancel_scope.cancel()
        assert outcome.failures == []  # the clients of the others notice nothing
        assert killed.created
        await trio.to_thread.run_sync(check, servers[:2], token, outcome.created | killed.created)


def check(servers: list[Server], token: str, created: dict[str, str]) -> None:
    """Each is readable at every instance, and found and audited exactly once."""
    for server in servers:
        with server.client(token) as client:
            for id, name in created.items():
                assert client.get(f"/users/{id}").json()["name"] == name
    with servers[0].client(token) as client:

        def each_once(path: str, query: dict[str, str], member: str, expected: set[str]) -> bool:
            counts = counted(client, path, query, member)
            # Of creates that were refused there is an audit, too, of no user.
            twice = {name: counts[name] for name in expected if counts[name] > 1}
            assert twice == {}
            return expected <= counts.keys()

        audited = {f"user/{id}" for id in created}
        eventually(lambda: each_once("/audit", {"action": "user.create"}, "entity", audited), 40, 0.3)
        for word in {name.split()[0] for name in created.values()}:
            ids = {id for id, name in created.items() if name.split()[0] == word}
            eventually(lambda w=word, i=ids: each_once("/search", {"q": w}, "id", i), 40, 0.3)
    assert servers[0].cli("audit", "verify").returncode == 0
