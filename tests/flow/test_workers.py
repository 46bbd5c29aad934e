"""Several processes on real engines: killed, rolled, stopped, under load; and what their parent says of them."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest
import trio

from tests.engines.kafka import Broker
from tests.engines.postgres import Server as Postgres
from tests.flow.load import Connection, Outcome
from tests.flow.server import Server, eventually
from tests.flow.workers import engines, is_ready, pids, readyz, runs, started

pytestmark = [pytest.mark.process, pytest.mark.engines]

CLIENTS = 8


@pytest.fixture(scope="module")
def config(postgres: Postgres, kafka_broker: Broker) -> str:
    return engines(postgres, kafka_broker, postgres.create_database())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, config: str) -> Iterator[Server]:
    """Two workers, for tests that leave two behind."""
    with started(tmp_path_factory.mktemp("workers"), config, allow_kill=True) as server:
        yield server


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    return server.token()


def new_user(server: Server, token: str, name: str = "Ada Lovelace") -> str:
    with server.client(token) as client:
        answer = client.post("/users", json={"name": name, "email": "a@example.com", "bio": ""})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def under_load(server: Server, token: str, ids: list[str], trouble: Callable[[], object]) -> Outcome:
    """What clients with connections that they keep saw while *trouble* was made, and for a second after.

    A steady load, not all that the machine can take: what is lost must be lost to the trouble.
    """
    outcome = Outcome()

    async def client(connection: Connection, write: bool) -> None:
        new = b'{"name": "n", "email": "n@example.com", "bio": ""}'
        for turn in count():
            method, path, body = ("POST", "/users", new) if write else ("GET", f"/users/{ids[turn % len(ids)]}", b"")
            try:
                status, answer = await connection.request(method, path, body)
            except (OSError, trio.BrokenResourceError) as error:
                outcome.failures.append(repr(error))
                await connection.aclose()
                continue
            outcome.answers[status] += 1
            if status not in (200, 201):
                outcome.failures.append(f"{status} {answer!r}")
            elif write:
                outcome.created[json.loads(answer)["id"]] = "n"
            await trio.sleep(0.02)

    async def main() -> None:
        connections = [Connection(server.port, token) for _ in range(CLIENTS)]
        async with trio.open_nursery() as nursery:
            for n, connection in enumerate(connections):
                nursery.start_soon(client, connection, n % 4 == 0)
            await trio.sleep(1)
            await trio.to_thread.run_sync(trouble)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        for connection in connections:
            await connection.aclose()

    trio.run(main)
    return outcome


def settled(server: Server) -> bool:
    return is_ready(server) and len(pids(server)) == 2


def test_the_parent_shows_its_tree_with_each_workers_below_and_forwards_commands(server: Server, token: str) -> None:
    with server.admin() as admin:
        tree = admin.get("/tree").json()
        page = admin.get("/", headers={"Accept": "text/html"})
        crashed = admin.post("/tree/worker:2/cache_manager/kill")
        unknown = admin.post("/tree/worker:2/nobody/kill")
    assert [node["id"] for node in tree["children"]] == ["admin", "control", "worker:1", "worker:2", "roll"]
    for worker in tree["children"][2:4]:
        (root,) = worker["children"]
        assert "request_path" in [node["id"] for node in root["children"]]
        assert "admin" not in [node["id"] for node in root["children"]]
    assert page.status_code == 200
    assert (crashed.status_code, unknown.status_code) == (202, 404)
    assert server.cli("dlq", "list").returncode == 0
    assert server.cli("audit", "verify").returncode == 0


def test_metrics_add_up_to_the_requests_that_were_sent_also_over_a_roll(server: Server, token: str) -> None:
    id = new_user(server, token)
    before = server.metric("weir_requests_total", status="200")
    for _ in range(200):  # a connection each: some to either worker
        assert httpx.get(f"{server.url}/users/{id}", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert server.metric("weir_requests_total", status="200") == before + 200
    with server.admin() as admin:
        rolled = admin.post("/workers/roll", timeout=120)
    assert (rolled.status_code, rolled.json()) == (200, {"rolled": 2})
    assert server.metric("weir_requests_total", status="200") == before + 200


def test_a_killed_worker_comes_back_and_clients_of_the_other_notice_nothing(server: Server, token: str) -> None:
    ids = [new_user(server, token) for _ in range(5)]
    before = pids(server)

    def kill() -> None:
        os.kill(before["worker:1"], signal.SIGKILL)
        eventually(lambda: pids(server).get("worker:1") not in (None, before["worker:1"]), within=60)

    outcome = under_load(server, token, ids, kill)
    eventually(lambda: settled(server), within=60)
    assert pids(server)["worker:2"] == before["worker:2"]
    # One failure a connection at most: those that the killed one had.
    assert len(outcome.failures) <= CLIENTS, outcome.failures
    assert all("Error" in failure for failure in outcome.failures), outcome.failures
    assert outcome.answers[200] > 100
    with server.client(token) as client:
        assert all(client.get(f"/users/{id}").status_code == 200 for id in outcome.created)
    assert server.metric("weir_actor_restarts_total", actor="worker:1") >= 1


def test_rolling_all_workers_drops_no_request(server: Server, token: str) -> None:
    ids = [new_user(server, token) for _ in range(5)]
    before = pids(server)

    def roll() -> None:
        assert server.process is not None
        server.process.send_signal(signal.SIGUSR2)
        eventually(lambda: not set(pids(server).values()) & set(before.values()), within=90)
        eventually(lambda: not any(runs(pid) for pid in before.values()), within=60)

    outcome = under_load(server, token, ids, roll)
    assert outcome.failures == []
    assert outcome.answers[200] > 100
    assert outcome.answers[201] > 10
    assert outcome.answers.keys() == {200, 201}


def test_a_file_that_is_wrong_stops_a_roll_and_keeps_no_killed_worker_from_coming_back(
    server: Server, token: str
) -> None:
    before, right = pids(server), server.config.read_text()
    server.config.write_text(right + "\n[sever]\n")
    try:
        with server.admin() as admin:
            refused = admin.post("/workers/roll", timeout=120)
        assert refused.status_code == 409
        assert "unknown key sever" in refused.json()["detail"]
        assert pids(server) == before
        os.kill(before["worker:2"], signal.SIGKILL)
        eventually(lambda: settled(server) and pids(server)["worker:2"] != before["worker:2"], within=60)
    finally:
        server.config.write_text(right)


def test_without_one_worker_the_server_is_degraded(server: Server, token: str) -> None:
    """Stopped, it is neither dead nor does it answer."""
    pid = pids(server)["worker:1"]
    os.kill(pid, signal.SIGSTOP)
    try:
        found = readyz(server)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (found["status_code"], found["status"]) == (200, "degraded")
    assert found["reasons"] == ["worker:1 is silent"]
    eventually(lambda: settled(server))


def test_a_reload_reaches_every_worker(server: Server, token: str) -> None:
    right = server.config.read_text()
    server.config.write_text(right + '\n[cors]\norigins = ["https://app.example"]\n')
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)

    def allowed() -> bool:
        answers = [
            httpx.get(f"{server.url}/openapi.json", headers={"Origin": "https://app.example"}) for _ in range(20)
        ]
        return all("access-control-allow-origin" in answer.headers for answer in answers)

    try:
        eventually(allowed)
    finally:
        server.config.write_text(right)
        server.process.send_signal(signal.SIGHUP)


def test_workers_go_with_a_parent_that_is_killed_and_another_can_start_at_once(tmp_path: Path, config: str) -> None:
    with started(tmp_path, config) as server:
        workers = pids(server).values()
        os.kill(next(iter(workers)), signal.SIGSTOP)  # not even one that hangs stays
        server.kill9()
        eventually(lambda: not any(runs(pid) for pid in workers), within=5)
        server.start(wait=False)
        eventually(lambda: is_ready(server), within=60)


def test_told_to_stop_all_drain_within_the_deadline(tmp_path: Path, config: str) -> None:
    with started(tmp_path, f'server.shutdown_deadline = "15s"\n{config}') as server:
        workers, token = pids(server).values(), server.token()
        with server.client(token) as client:
            assert client.get("/users").status_code == 200  # a connection that is kept and idle
            began = time.monotonic()
            assert server.stop(20) == 0
        assert time.monotonic() - began < 16
        assert not any(runs(pid) for pid in workers)
        assert list((server.data / "workers").iterdir()) == []
        assert "Traceback" not in server.log.read_text()


def test_what_is_wrong_for_every_worker_ends_the_start_with_one_line(tmp_path: Path, config: str) -> None:
    server = Server(tmp_path, f"server.workers = 2\n{config.replace('weir-secret', 'wrong')}")
    server.start(wait=False)
    assert server.process is not None
    assert server.process.wait(60) == 2
    assert "weir: postgres.dsn" in server.log.read_text()
    assert "wrong" not in server.log.read_text()


def test_workers_on_embedded_storage_are_refused(tmp_path: Path) -> None:
    server = Server(tmp_path, "server.workers = 2\n")
    refused = server.cli("check")
    assert refused.returncode == 2
    assert "server.workers = 2: must be 1: embedded storage is one process" in refused.stderr
