"""A Weir of several processes on real engines, and what its tests ask of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.engines.kafka import Broker
from tests.engines.postgres import Server as Postgres
from tests.flow.server import GENEROUS, Server, eventually


def engines(postgres: Postgres, kafka: Broker, database: str) -> str:
    return f'postgres.dsn = "{postgres.dsn(database)}"\nkafka.bootstrap = "{kafka.bootstrap}"\n'


@contextmanager
def started(folder: Path, config: str, *, workers: int = 2, allow_kill: bool = False) -> Iterator[Server]:
    folder.mkdir(exist_ok=True)
    server = Server(folder, f"server.workers = {workers}\n{config}{GENEROUS}", allow_kill=allow_kill)
    server.start(wait=False)
    try:
        eventually(lambda: is_ready(server), within=90)
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop(60)


def readyz(server: Server) -> dict[str, Any]:
    answer = httpx.get(f"{server.admin_url}/readyz")
    return {"status_code": answer.status_code, **answer.json()}


def is_ready(server: Server) -> bool:
    assert server.process is not None
    if server.process.poll() is not None:
        raise RuntimeError(f"the server ended with {server.process.returncode}:\n{server.log.read_text()[-4000:]}")
    return bool(readyz(server)["status"] == "ready")


def pids(server: Server) -> dict[str, int]:
    """The process of each worker that has one, by the id of its actor."""
    with server.admin() as admin:
        nodes = admin.get("/tree").json()["children"]
    return {node["id"]: node["detail"]["pid"] for node in nodes if node.get("detail", {}).get("pid")}


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
