"""How many requests a second: closed loop, the server saturated."""

from bench import h2load
from bench.driving import closed_loop, drive
from bench.peers.http_peer import HttpPeer
from bench.peers.proxies import ProxyPeer
from bench.registry import Row, Sample, Session


def reads(peer: HttpPeer, session: Session) -> Sample:
    return closed_loop(peer, session, "read")


def writes(peer: HttpPeer, session: Session) -> Sample:
    return closed_loop(peer, session, "write")


def proxied(peer: ProxyPeer, session: Session) -> Sample:
    """As `reads`, and what share of the load's core the upstream had.

    Near 1 together with the client's, it is they who were measured.
    """
    before = peer.upstream_seconds()
    sample = reads(peer, session)
    sample.details["upstream_cpu"] = (peer.upstream_seconds() - before) / (session.warmup_s + session.seconds)
    return sample


def https(peer: HttpPeer, session: Session) -> Sample:
    return drive(peer, session, lambda: h2load.closed_loop(peer, session, "http/1.1"))


def h2(peer: HttpPeer, session: Session) -> Sample:
    return drive(peer, session, lambda: h2load.closed_loop(peer, session, "h2"))


USERS = ("weir", "fastapi", "nginx-gate")
HELLO = ("weir-hello", "uvicorn", "hypercorn-trio", "quart-trio")
PROXIES = ("weir-proxy", "fastapi-httpx", "nginx-proxy")
TLS = ("weir-tls", "nginx-gate-tls")
PINNED = ("pinned",)

ROWS = (
    Row("hello", "13 bytes of an ASGI app, by the HTTP server alone", "req/s", HELLO, reads, layouts=PINNED),
    Row("reads", "GET /users/{id}, cached, the whole flow", "req/s", USERS, reads),
    Row("writes", "POST /users, durable", "req/s", USERS[:2], writes),
    Row("proxy", "a small JSON answer of an upstream", "req/s", PROXIES, proxied, layouts=PINNED, needs=("nginx",)),
    Row("https", "`reads` over TLS, HTTP/1.1", "req/s", TLS, https, layouts=PINNED, needs=("h2load",), default=False),
    Row("h2", "`reads` over TLS, HTTP/2", "req/s", TLS, h2, layouts=PINNED, needs=("h2load",), default=False),
)
