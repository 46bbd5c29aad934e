"""The peers by name. A row names those it compares."""

import sys
from collections.abc import Callable
from pathlib import Path

from bench.peers.events import Embedded, OnKafka
from bench.peers.fastapi_peer import FastApi
from bench.peers.hello_peers import HypercornHello, UvicornHello, WeirHello
from bench.peers.nginx_gate import NginxGate
from bench.peers.on_engines import FastApiOnEngines, WeirOnEngines, WeirPair
from bench.peers.program import Program
from bench.peers.proxies import FastApiProxy, NginxProxy, WeirProxy
from bench.peers.weir_peer import PYTHON, Weir
from bench.registry import Peer

# As many as `idle-10000` opens, and some for the bench itself; and none is closed for being idle.
MANY: dict[str, object] = {
    "max_connections": 11_000,
    "max_connections_per_address": 11_000,
    "keep_alive_timeout": "10m",
}

PEERS: dict[str, Callable[[], Peer]] = {
    "weir": Weir,
    "fastapi": FastApi,
    # The tutorial's way to write an audit, one insert and one commit a request; run with --peer.
    "fastapi-background": lambda: FastApi(audit="background"),
    "nginx-gate": NginxGate,
    "weir-many": lambda: Weir(MANY),
    "weir-tls": lambda: Weir(tls=True),
    "nginx-gate-tls": lambda: NginxGate(tls=True),
    # On Redis, PostgreSQL and Kafka.
    "weir-engines": WeirOnEngines,
    "fastapi-engines": FastApiOnEngines,
    "weir-workers-1": lambda: WeirOnEngines({"workers": 1}),
    "weir-workers-2": lambda: WeirOnEngines({"workers": 2}),
    "weir-pair": WeirPair,
    # HTTP servers alone.
    "weir-hello": WeirHello,
    "uvicorn": UvicornHello,
    "hypercorn-trio": HypercornHello,
    "quart-trio": lambda: HypercornHello("bench.apps.quart_hello:app"),
    # In front of an upstream.
    "weir-proxy": WeirProxy,
    "fastapi-httpx": FastApiProxy,
    "fastapi-httpx-whole": lambda: FastApiProxy("whole"),
    "nginx-proxy": NginxProxy,
    # The event side: programs, on the embedded log and on Kafka.
    "weir-log": lambda: Embedded(PYTHON, "bench.events.with_weir"),
    "weir-kafka": lambda: OnKafka(PYTHON, "bench.events.with_weir"),
    "aiokafka": lambda: OnKafka(PYTHON, "bench.events.with_aiokafka"),
    "faststream": lambda: OnKafka(Path(sys.executable), "bench.events.with_faststream"),
    # The runtime's rows: Weir's actors, trio's channels without them, and the other actor library.
    "actors": lambda: Program(PYTHON, "bench.runtime.with_actors"),
    "channels": lambda: Program(PYTHON, "bench.runtime.with_channels"),
    "pykka": lambda: Program(Path(sys.executable), "bench.runtime.with_pykka"),
}
