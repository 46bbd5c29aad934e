"""The peers by name. A row names those it compares."""

import sys
from collections.abc import Callable
from pathlib import Path

from bench.peers.fastapi_peer import FastApi
from bench.peers.program import Program
from bench.peers.weir_peer import PYTHON, Weir
from bench.registry import Peer

PEERS: dict[str, Callable[[], Peer]] = {
    "weir": Weir,
    "fastapi": FastApi,
    # The tutorial's way to write an audit, one insert and one commit a request; run with --peer.
    "fastapi-background": lambda: FastApi(audit="background"),
    # The runtime's rows: Weir's actors, trio's channels without them, and the other actor library.
    "actors": lambda: Program(PYTHON, "bench.runtime.with_actors"),
    "channels": lambda: Program(PYTHON, "bench.runtime.with_channels"),
    "pykka": lambda: Program(Path(sys.executable), "bench.runtime.with_pykka"),
}
