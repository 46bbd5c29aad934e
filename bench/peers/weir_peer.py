"""Starts Weir as an operator would: `supervisor.py --config`, embedded, on a data folder of its own."""

import json
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

from bench.certificate import certificate
from bench.load import ORIGIN
from bench.peers.http_peer import SCOPES, SUBJECT, UsersPeer
from bench.process import ROOT, START_S, Failed, Process, Skipped, fetch, free_port, output_of
from bench.registry import Session

PYTHON = ROOT / ".venv" / "bin" / "python"
SUPERVISOR = (str(PYTHON), "supervisor.py")
LAG = re.compile(rb"^weir_consumer_lag\{[^}]*\} (\S+)$", re.MULTILINE)
PENDING = re.compile(rb"^weir_(?:deliveries_pending|outbox_rows|spool_events) (\S+)$", re.MULTILINE)
MAY_BE_REFUSED = ("tls_", "workers", "roles")
COUNT_S = 10.0  # how long to page through the audit trail before an incomplete count is good enough

# Every setting at its default but the addresses, the origin and limits that do not limit.
CONFIG = """\
[server]
bind = "127.0.0.1:{public}"
{server}
[admin]
bind = "127.0.0.1:{admin}"
[data]
dir = "data"
[cors]
origins = ["{origin}"]
[[limits]]
name = "caller"
key = "token"
quota = 30000000
window = "1m"
burst = 1000000
[[limits]]
name = "address"
key = "address"
quota = 30000000
window = "1m"
burst = 1000000
{tables}
"""


class WeirServer:
    """The process, its configuration, its admin listener and its command line."""

    def __init__(self) -> None:
        self._config = Path()
        self._admin = ""
        self._process: Process | None = None

    def launch(self, session: Session, port: int, server: str = "", tables: str = "") -> Process:
        """Start it on *port*, with *server* in its `[server]` and *tables* at the end of the file; not yet ready.

        Raises `Skipped` when this build refuses to serve TLS, so many workers, or a part of the roles.
        """
        if not PYTHON.exists():
            raise Failed("there is no .venv; run `make setup`")
        admin = free_port()
        self._admin, self._config = f"http://127.0.0.1:{admin}", session.folder / "config.toml"
        text = CONFIG.format(public=port, admin=admin, origin=ORIGIN, server=server, tables=tables)
        self._config.write_text(text)
        if any(word in server for word in MAY_BE_REFUSED):
            self._check()
        command = [*SUPERVISOR, "--config", str(self._config)]
        self._process = Process(command, {}, session.folder / "log", session.layout.server_core)
        return self._process

    def wait_ready(self) -> None:
        assert self._process is not None
        self._process.wait_ready(f"{self._admin}/readyz")

    def issue(self, subject: str, *scopes: str) -> str:
        issue = [*SUPERVISOR, "token", "issue", "--config", str(self._config), "--subject", subject]
        return output_of([*issue, *(f"--scope={scope}" for scope in scopes)], {})

    def backlog(self) -> int:
        """Events not published or not consumed yet, and what consumers have noted down and have not delivered."""
        metrics = fetch(f"{self._admin}/metrics")
        lags, pending = LAG.findall(metrics), PENDING.findall(metrics)
        if not lags or not pending:
            raise Failed("/metrics has no weir_consumer_lag, or no weir_deliveries_pending")
        return sum(int(float(count)) for count in lags + pending)

    def unpublished(self) -> int:
        """Of these, those that have not reached the log."""
        return sum(int(float(count)) for count in PENDING.findall(fetch(f"{self._admin}/metrics")))

    def add_client(self, name: str, *scopes: str) -> tuple[str, str]:
        """A new OAuth client's id and secret."""
        command = [*SUPERVISOR, "client", "create", "--config", str(self._config), "--name", name]
        said = output_of([*command, *(f"--scope={scope}" for scope in scopes)], {})
        id, secret = (line.partition("=")[2] for line in said.splitlines())
        return id, secret

    def _check(self) -> None:
        command = [*SUPERVISOR, "check", "--config", str(self._config)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=START_S, check=False)
        said = " ".join((done.stdout + done.stderr).split())
        if done.returncode:
            raise Skipped(said) if any(word in said for word in MAY_BE_REFUSED) else Failed(said)


class Weir(UsersPeer):
    """Tokens come from the command line, backlog from `/metrics`, audits from `/audit`.

    *server* holds further keys of `[server]`; *tls*: HTTPS, HTTP/1.1 and HTTP/2 by ALPN.
    """

    def __init__(self, server: Mapping[str, object] | None = None, tls: bool = False) -> None:
        super().__init__()
        self._settings, self._tls = dict(server or {}), tls
        self._server = WeirServer()
        self._auditor = ""
        self._tables = ""
        """Appended to the configuration."""

    def launch(self, session: Session) -> None:
        port = free_port()
        settings, scheme = self._settings, "http"
        if self._tls:
            pair, scheme = certificate(session.folder), "https"
            settings = settings | {"tls_cert": str(pair.cert), "tls_key": str(pair.key)}
        lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.process = self._server.launch(session, port, lines, self._tables)
        self._server.wait_ready()
        self.token = self._server.issue(SUBJECT, *SCOPES)
        self._auditor = self._server.issue("bench-auditor", "audit:read")

    def backlog(self) -> int:
        return self._server.backlog()

    def count_audits(self) -> tuple[int, bool]:
        found, where = 0, {"subject": SUBJECT, "limit": "200"}
        give_up = time.monotonic() + COUNT_S
        while time.monotonic() < give_up:
            page = json.loads(fetch(f"{self.url}/audit?{urlencode(where)}", self._auditor))
            found += sum(item["action"] in ("user.read", "user.create") for item in page["items"])
            if not page["next_cursor"]:
                return found, True
            where["cursor"] = page["next_cursor"]
        return found, False
