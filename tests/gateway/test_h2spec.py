"""HTTP/2 as h2spec has it: no case fails that does not fail on stock Hypercorn."""

import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio import serve as stock_serve

from gateway.asgi_types import Receive, Scope, Send
from gateway.server import TlsRef
from gateway.tls import server_context
from tests.gateway.serving import respond, serving
from tests.gateway.test_tls import pem

H2SPEC = shutil.which("h2spec") or str(Path.home() / "go/bin/h2spec")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not os.access(H2SPEC, os.X_OK), reason="no h2spec: go install github.com/summerwind/h2spec/cmd/h2spec@latest"
    ),
]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    while (await receive()).get("more_body", False):
        pass
    await respond(send, b"x" * 1000)


async def failures(port: int) -> set[str]:
    """The cases that fail on what listens at *port*, as h2spec names them."""
    command = [H2SPEC, "-t", "-k", "-S", "-h", "127.0.0.1", "-p", str(port), "-o", "2"]
    with trio.fail_after(400):
        ended = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    text = ended.stdout.decode()
    assert re.search(r"\d+ tests, \d+ passed", text), text[-500:] + ended.stderr.decode()
    return {line.strip() for line in text.partition("Failures:")[2].splitlines() if "\u00d7" in line}


@asynccontextmanager
async def stock(folder: Path) -> AsyncIterator[int]:
    cert, key = pem(folder, name="stock")
    config = Config.from_mapping(bind=["127.0.0.1:0"], certfile=str(cert), keyfile=str(key), errorlog=None)
    async with trio.open_nursery() as nursery:
        (bound,) = await nursery.start(stock_serve, app, config)
        yield int(bound.rpartition(":")[2])
        nursery.cancel_scope.cancel()


async def test_no_case_fails_that_passes_on_stock_hypercorn(tmp_path: Path) -> None:
    async with stock(tmp_path) as port:
        theirs = await failures(port)
    async with serving(app, tls=TlsRef(server_context(*pem(tmp_path)))) as here:
        ours = await failures(here.port)
        assert here.faults() == 0
    assert ours <= theirs
