"""Starts the FastAPI peer: one uvicorn worker, httptools and uvloop. It has no consumers, so no backlog."""

import sqlite3
import sys
from pathlib import Path

from bench.load import ORIGIN
from bench.peers.http_peer import SCOPES, SUBJECT, HttpPeer
from bench.process import Process, free_port, output_of
from bench.registry import Session

APP = "bench.peers.fastapi_app"


class FastApi(HttpPeer):
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
        command = [sys.executable, "-m", "uvicorn", f"{APP}:app", "--loop", "uvloop", "--http", "httptools"]
        command += ["--no-access-log", "--log-level", "warning", "--port", str(port)]
        self.process = Process(command, env, session.folder / "log", session.layout.server_core)
        self.process.wait_ready(f"{self.url}/openapi.json")

    def count_audits(self) -> tuple[int, bool]:
        with sqlite3.connect(self._database) as connection:
            (count,) = connection.execute("SELECT count(*) FROM audit WHERE subject = ?", (SUBJECT,)).fetchone()
        connection.close()
        return count, True
