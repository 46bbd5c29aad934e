"""Starts Weir as an operator would: `supervisor.py --config`, embedded, on a data folder of its own."""

import json
import re
import time
from urllib.parse import urlencode

from bench.load import ORIGIN
from bench.peers.http_peer import SCOPES, SUBJECT, HttpPeer
from bench.process import ROOT, Failed, Process, fetch, free_port, output_of
from bench.registry import Session

PYTHON = ROOT / ".venv" / "bin" / "python"
LAG = re.compile(rb"^weir_consumer_lag\{[^}]*\} (\S+)$", re.MULTILINE)
COUNT_S = 10.0  # how long to page through the audit trail before an incomplete count is good enough

# Every setting at its default but the addresses, the origin and limits that do not limit.
CONFIG = """\
[server]
bind = "127.0.0.1:{public}"
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
"""


class Weir(HttpPeer):
    """Tokens come from the command line, backlog from `/metrics`, audits from `/audit`."""

    def __init__(self) -> None:
        super().__init__()
        self._admin = ""
        self._auditor = ""

    def launch(self, session: Session) -> None:
        if not PYTHON.exists():
            raise Failed("there is no .venv; run `make setup`")
        public, admin = free_port(), free_port()
        config = session.folder / "config.toml"
        config.write_text(CONFIG.format(public=public, admin=admin, origin=ORIGIN))
        self.url, self._admin = f"http://127.0.0.1:{public}", f"http://127.0.0.1:{admin}"
        supervisor = [str(PYTHON), "supervisor.py"]
        command = [*supervisor, "--config", str(config)]
        self.process = Process(command, {}, session.folder / "log", session.layout.server_core)
        self.process.wait_ready(f"{self._admin}/readyz")
        issue = [*supervisor, "token", "issue", "--config", str(config)]
        self.token = output_of([*issue, "--subject", SUBJECT, *(f"--scope={scope}" for scope in SCOPES)], {})
        self._auditor = output_of([*issue, "--subject", "bench-auditor", "--scope=audit:read"], {})

    def backlog(self) -> int:
        lags = [int(float(lag)) for lag in LAG.findall(fetch(f"{self._admin}/metrics"))]
        if not lags:
            raise Failed("/metrics has no weir_consumer_lag")
        return sum(lags)

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
