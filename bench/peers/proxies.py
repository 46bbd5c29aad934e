"""Gateways in front of one small upstream: an nginx of its own that answers a small JSON, on the load's core.

It is the same for all, and quick enough that the gateway is what is measured.
"""

import json

from bench.peers.fastapi_peer import uvicorn
from bench.peers.http_peer import HttpPeer
from bench.peers.nginx import nginx
from bench.peers.weir_peer import WeirServer
from bench.process import Failed, Process, fetch, free_port
from bench.registry import Session

ITEMS = 128
UPSTREAM = """\
    server {{
        listen 127.0.0.1:{port};
        location ~ ^/items/(?<id>[0-9]+)$ {{
            return 200 '{{"id":"$id","name":"A small thing","price":1295,"tags":["small","quick"]}}';
        }}
    }}
"""
PROXY = """\
    upstream items {{ server 127.0.0.1:{upstream}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://items;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
"""
# Whoever may see it may see it: what is compared is forwarding. Limits and audits go on.
ROUTE = """\
[[routes]]
prefix = "/items"
target = "http://127.0.0.1:{upstream}"
auth = "none"
"""


class ProxyPeer(HttpPeer):
    kind = "proxy"
    needs: tuple[str, ...] = ("nginx",)

    def __init__(self) -> None:
        super().__init__()
        self._upstream: Process | None = None

    def launch(self, session: Session) -> None:
        upstream, port = free_port(), free_port()
        self._upstream = nginx(session.folder / "upstream", UPSTREAM.format(port=upstream), session.layout.load_core)
        self._upstream.wait_ready(f"http://127.0.0.1:{upstream}/items/0")
        self.url = f"http://127.0.0.1:{port}"
        self.forward(upstream, port, session)

    def forward(self, upstream: int, port: int, session: Session) -> None:
        """Serve on *port* what *upstream* answers: set `process`, and wait until it is ready."""
        raise NotImplementedError

    def prepare(self) -> list[str]:
        for number in range(ITEMS):
            if json.loads(fetch(f"{self.url}/items/{number}"))["id"] != str(number):
                raise Failed(f"{self.url}/items/{number} is another item")
        return [f"/items/{number}" for number in range(ITEMS)]

    def upstream_seconds(self) -> float:
        """Processor time that the upstream has used."""
        return self._upstream.cpu_seconds() if self._upstream is not None else 0.0

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            if self._upstream is not None:
                self._upstream.stop()


class WeirProxy(ProxyPeer):
    def __init__(self) -> None:
        super().__init__()
        self._server = WeirServer()

    def forward(self, upstream: int, port: int, session: Session) -> None:
        self.process = self._server.launch(session, port, tables=ROUTE.format(upstream=upstream))
        self._server.wait_ready()

    def backlog(self) -> int:
        return self._server.backlog()


class FastApiProxy(ProxyPeer):
    """*body*: `streamed` or `whole`, see the app."""

    def __init__(self, body: str = "streamed") -> None:
        super().__init__()
        self._body = body

    def forward(self, upstream: int, port: int, session: Session) -> None:
        env = {"PEER_UPSTREAM": f"http://127.0.0.1:{upstream}", "PEER_BODY": self._body}
        self.process = uvicorn("bench.apps.fastapi_proxy:app", port, session, env)
        self.process.wait_ready(f"{self.url}/items/0")


class NginxProxy(ProxyPeer):
    def forward(self, upstream: int, port: int, session: Session) -> None:
        config = PROXY.format(upstream=upstream, port=port)
        self.process = nginx(session.folder / "proxy", config, session.layout.server_core)
        self.process.wait_ready(f"{self.url}/items/0")
