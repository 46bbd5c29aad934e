"""HTTP servers with an app that answers 13 bytes: what the server itself costs, with no stage behind it."""

import sys

from bench.peers.fastapi_peer import uvicorn
from bench.peers.http_peer import HttpPeer
from bench.peers.weir_peer import PYTHON
from bench.process import Failed, Process, fetch, free_port
from bench.registry import Session

APP = "bench.apps.hello:app"


class Hello(HttpPeer):
    kind = "hello"

    def launch(self, session: Session) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.process = self.serve(port, session)
        self.process.wait_ready(self.url)

    def serve(self, port: int, session: Session) -> Process:
        raise NotImplementedError

    def prepare(self) -> list[str]:
        if (body := fetch(self.url)) != b"Hello, world!":
            raise Failed(f"{self.url} answered {body!r}")
        return ["/"]


class WeirHello(Hello):
    """Weir's server by itself, in Weir's environment."""

    def serve(self, port: int, session: Session) -> Process:
        if not PYTHON.exists():
            raise Failed("there is no .venv; run `make setup`")
        command = [str(PYTHON), "-m", "bench.apps.weir_hello", f"127.0.0.1:{port}"]
        return Process(command, {}, session.folder / "log", session.layout.server_core)


class UvicornHello(Hello):
    def serve(self, port: int, session: Session) -> Process:
        return uvicorn(APP, port, session, {})


class HypercornHello(Hello):
    """Stock Hypercorn's trio worker."""

    def __init__(self, app: str = APP) -> None:
        super().__init__()
        self._app = app

    def serve(self, port: int, session: Session) -> Process:
        command = [sys.executable, "-m", "hypercorn", "--worker-class", "trio", "--workers", "1"]
        command += ["--bind", f"127.0.0.1:{port}", "--log-level", "warning", self._app]
        return Process(command, {}, session.folder / "log", session.layout.server_core)
