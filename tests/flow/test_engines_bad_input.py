"""Settings of engines that cannot work: one line and code 2 where waiting cures nothing, else /readyz says it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.engines.kafka import USERS
from tests.flow.installation import Installation, installed, is_whole, nowhere
from tests.flow.server import GENEROUS, ROOT, Server, eventually

pytestmark = [pytest.mark.process, pytest.mark.engines]


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    with installed() as made:
        yield made


def sasl(installation: Installation, user: str, password: str, mechanism: str = "PLAIN") -> str:
    return (
        f'{installation.settings(kafka=installation.kafka.sasl_bootstrap)}security_protocol = "SASL_PLAINTEXT"\n'
        f'sasl_mechanism = "{mechanism}"\nusername = "{user}"\npassword = "{password}"\n'
    )


def test_what_waiting_does_not_cure_is_one_line_and_code_2(installation: Installation, tmp_path: Path) -> None:
    whole = installation.settings()
    cases = {
        "a wrong password of PostgreSQL": (
            whole.replace("weir-secret", "wrong-secret"), ("postgres.dsn", "password")
        ),
        "a database that is not there": (
            whole.replace(f"/{installation.database}", "/absent"), ("postgres.dsn", "create the database")
        ),
        "a wrong password of Kafka": (sasl(installation, "admin", "wrong-secret"), ("kafka.password", "login")),
        "a mechanism that Kafka has not": (
            sasl(installation, "admin", USERS["admin"], "SCRAM-SHA-256"), ("kafka.sasl_mechanism",)
        ),
        "no right to the topics": (sasl(installation, "nobody", USERS["nobody"]), ("no right", "kafka.username")),
        "PostgreSQL without Kafka": (whole[: whole.index("[kafka]")], ("kafka.bootstrap", "PostgreSQL with Kafka")),
        "Kafka without PostgreSQL": (whole[whole.index("[kafka]") :], ("postgres.dsn", "PostgreSQL with Kafka")),
        "a Redis Cluster": (
            whole.replace("redis://", "redis+cluster://"), ("redis.url",)
        ),
    }  # fmt: skip
    faults = []
    for number, (case, (settings, says)) in enumerate(cases.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        server = Server(folder, GENEROUS + settings)
        ended = subprocess.run(
            [sys.executable, str(ROOT / "supervisor.py"), "--config", str(server.config)],
            capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONWARNINGS": "error"}, timeout=60,
        )  # fmt: skip
        lines = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
        if ended.returncode != 2 or len(lines) != 1 or not all(word in lines[0] for word in ("weir: ", *says)):
            faults.append(f"{case}: code {ended.returncode}, {ended.stderr[-1500:]}")
        assert "secret" not in ended.stderr
    assert faults == []


@pytest.mark.parametrize("engine", ["redis", "postgres", "kafka"])
def test_what_is_not_there_is_said_by_readyz_and_waited_for(installation: Installation, engine: str) -> None:
    """PostgreSQL is on the way of every request; without the others requests are answered all the same."""
    whole, place = installation.settings(), nowhere()
    there = {
        "redis": f"127.0.0.1:{installation.redis.port}",
        "postgres": f"127.0.0.1:{installation.postgres.port}",
        "kafka": installation.kafka.bootstrap,
    }[engine]
    server = installation.instance()
    server.config.write_text(server.config.read_text().replace(whole, whole.replace(there, place)))
    server.start(wait=False)
    try:

        def told() -> bool:
            answer = httpx.get(f"{server.admin_url}/readyz")
            state = answer.json()
            expected = (503, "not ready") if engine == "postgres" else (200, "degraded")
            return (answer.status_code, state["status"]) == expected and place in str(state["reasons"])

        eventually(told, 20)
        assert httpx.get(f"{server.admin_url}/healthz").status_code == 200
        assert httpx.get(f"{server.url}/openapi.json").status_code == 200
        assert server.stop() == 0
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill9()
    assert "secret" not in server.log.read_text()
    assert "Traceback" not in server.log.read_text()


def test_engines_that_come_later_are_found(installation: Installation) -> None:
    installation.redis.stop()
    installation.postgres.stop()
    installation.kafka.kill()
    server = installation.instance()
    server.start(wait=False)
    try:
        eventually(lambda: httpx.get(f"{server.admin_url}/readyz").status_code == 503, 20)
        installation.mend()
        eventually(lambda: is_whole(server), 20)
        with server.client(server.token()) as client:
            made = client.post("/users", json={"name": "Late", "email": "l@example.com", "bio": ""})
            assert made.status_code == 201
            eventually(lambda: client.get("/search?q=late").json()["items"], 20)
        assert server.stop() == 0
    finally:
        installation.mend()
        if server.process is not None and server.process.poll() is None:
            server.kill9()
    assert "Traceback" not in server.log.read_text()
