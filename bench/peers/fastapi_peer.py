"""Starts the FastAPI peers: one uvicorn worker, httptools and uvloop. They have no consumers, so no backlog."""

import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.load import ORIGIN
from bench.peers.http_peer import SCOPES, SUBJECT, UsersPeer
from bench.process import Process, free_port, output_of
from bench.registry import Session

APP = "bench.apps.fastapi_users"


def uvicorn(app: str, port: int, session: Session, env: Mapping[str, str]) -> Process:
    """uvicorn at its quickest, on the server's core; not yet ready."""
    command = [sys.executable, "-m", "uvicorn", app, "--loop", "uvloop", "--http", "httptools"]
    command += ["--no-access-log", "--log-level", "warning", "--port", str(port)]
    return Process(command, env, session.folder / "log", session.layout.server_core)


class FastApi(UsersPeer):
    """*audit*: `batched` or `background`, see the app."""

    def __init__(self, audit: str = "batched") -> None:
        super().__init__()
        self._audit = audit
        self._database = Path()

    def launch(self, session: Session) -> None:
        self._database = session.folder / "peer.db"
        env = {
            "PEER_DB": str(self._database),
            "PEER_ORIGINS": ORIGIN,
            "PEER_AUDIT": self._audit,
            "PEER_QUOTA": "30000000",
            "PEER_BURST": "1000000",
        }
        scopes = [f"--scope={scope}" for scope in SCOPES]
        self.token = output_of([sys.executable, "-m", APP, "token", "--subject", SUBJECT, *scopes], env)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.process = uvicorn(f"{APP}:app", port, session, env)
        self.process.wait_ready(f"{self.url}/openapi.json")

    def count_audits(self) -> tuple[int, bool]:
        with sqlite3.connect(self._database) as connection:
            (count,) = connection.execute("SELECT count(*) FROM audit WHERE subject = ?", (SUBJECT,)).fetchone()
        connection.close()
        return count, True
