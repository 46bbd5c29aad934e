"""Real engines for tests: started once a session on free ports in temporary folders, stopped and removed after.

An engine that is not installed skips its tests with one line that says which and how to get it; with
WEIR_REQUIRE_SERVICES=1 (CI) it fails them.
"""

import os
import shutil
import socket
from pathlib import Path
from typing import NoReturn

import pytest

CURE = "make services"


def executable(engine: str, *candidates: str) -> str:
    """The first of *candidates* (names or paths) that exists; else the test is skipped, or fails where CI asks."""
    found = next(filter(None, map(shutil.which, candidates)), None)
    return found if found is not None else missing(engine)


def missing(engine: str) -> NoReturn:
    reason = f"{engine} is not installed: `{CURE}` installs it"
    if os.environ.get("WEIR_REQUIRE_SERVICES") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def log_tail(path: Path, lines: int = 20) -> str:
    """What a server that did not start wrote last."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"
