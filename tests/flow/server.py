"""A real Weir process, on free ports and in a folder of its own."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx

ROOT = Path(__file__).resolve().parents[2]
EVERY_SCOPE = (
    "users:read", "users:write", "configuration:read", "configuration:write",
    "search:read", "webhooks:write", "audit:read",
)  # fmt: skip
GENEROUS = """
[[limits]]
name = "caller"
key = "token"
quota = 1000000
window = "1m"
burst = 1000000
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


T = TypeVar("T")


def eventually(probe: Callable[[], T], within: float = 30.0, every: float = 0.05) -> T:
    """The first truthy value of *probe*; the last one's assertion or value when time runs out."""
    end = time.monotonic() + within
    while True:
        try:
            value = probe()
        except (AssertionError, httpx.TransportError):
            if time.monotonic() > end:
                raise
        else:
            if value or time.monotonic() > end:
                assert value, f"not within {within} s: {value!r}"
                return value
        time.sleep(every)


class Server:
    def __init__(self, folder: Path, config: str = GENEROUS, *, allow_kill: bool = False) -> None:
        self.folder = folder
        self.port, self.admin_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin_url = f"http://127.0.0.1:{self.admin_port}"
        self.config = folder / "weir.toml"
        self.config.write_text(
            f'server.bind = "127.0.0.1:{self.port}"\nadmin.bind = "127.0.0.1:{self.admin_port}"\n'
            f"admin.allow_kill = {str(allow_kill).lower()}\n{config}"
        )
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "var"

    def start(self, *, wait: bool = True) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "supervisor.py"), "--config", str(self.config)],
                cwd=ROOT, stdout=log, stderr=log, env=os.environ | {"PYTHONWARNINGS": "error"},
            )  # fmt: skip
        if wait:
            eventually(self._ready, within=30)

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log.read_text()[-4000:]}")
        return httpx.get(f"{self.admin_url}/readyz").status_code == 200

    def stop(self, within: float = 30) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    def kill9(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def cli(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "supervisor.py"), *arguments, "--config", str(self.config)],
            cwd=ROOT, capture_output=True, text=True, input=stdin, timeout=60,
        )  # fmt: skip

    def token(self, *scopes: str, subject: str = "tester") -> str:
        chosen = [part for scope in scopes or EVERY_SCOPE for part in ("--scope", scope)]
        issued = self.cli("token", "issue", "--subject", subject, *chosen)
        assert issued.returncode == 0, issued.stderr
        return issued.stdout.strip()

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, **options)

    def admin(self) -> httpx.Client:
        token = (self.data / "admin.token").read_text().strip()
        return httpx.Client(base_url=self.admin_url, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def metric(self, name: str, **labels: str) -> float:
        """The sum over the series of *name* whose labels include *labels*."""
        total = 0.0
        for line in httpx.get(f"{self.admin_url}/metrics").text.splitlines():
            if match := re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line):
                has = dict(re.findall(r'(\w+)="([^"]*)"', match[1] or ""))
                if labels.items() <= has.items():
                    total += float(match[2])
        return total

    def restarts(self) -> dict[str, int]:
        with self.admin() as admin:
            return {node["id"]: node["restarts"] for node in _walk(admin.get("/tree").json())}

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


def _walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("children", ()):
        yield from _walk(child)


@contextlib.contextmanager
def running(folder: Path, config: str = GENEROUS, *, allow_kill: bool = False) -> Iterator[Server]:
    server = Server(folder, config, allow_kill=allow_kill)
    server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()
