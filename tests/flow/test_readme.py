"""The README's first request, line by line as a user types it."""

import json
import os
import re
import subprocess
import sys

import httpx
import pytest

from tests.flow.server import ROOT, eventually

pytestmark = pytest.mark.process


def test_the_first_request_of_the_readme_works_as_written(tmp_path):
    """Default settings, default ports, the README's own lines; only the data goes to a folder of the test's."""
    (block,) = re.findall(r"```sh\n(TOKEN=.*?)```", (ROOT / "README.md").read_text(), re.S)
    environ = os.environ | {"WEIR_DATA__DIR": str(tmp_path / "var")}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "supervisor.py"], cwd=ROOT, env=environ, stdout=log, stderr=log)
    try:
        eventually(lambda: server.poll() is not None or httpx.get("http://127.0.0.1:8001/readyz").status_code == 200)
        assert server.poll() is None, (tmp_path / "log").read_text()
        # The README's `.venv` is the one this test runs in, wherever it is.
        script = block.replace(".venv/bin/python", sys.executable)
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ran.returncode == 0, ran.stderr
    finally:
        server.terminate()
        assert server.wait(30) == 0
    out = ran.stdout
    decoder = json.JSONDecoder()
    user, _ = decoder.raw_decode(out)
    assert user["name"] == "Ada Lovelace"
    queries = re.findall(r"^weir_database_queries_total (\S+)", out, re.M)
    assert len(queries) == 2
    assert queries[0] == queries[1], "the second read asked the database"
    (hits,) = [line for line in out.splitlines() if '"highlight"' in line]
    assert user["id"] in hits, "the search does not find the user"
    assert '"action":"user.read"' in out.replace(" ", "")
    assert "401 Unauthorized" in out or "HTTP/1.1 401" in out
    assert re.search(r"^\s*\d+ HTTP/1.1 429", out, re.M), "the limit was never reached"
    assert re.search(r"^\s*\d+ retry-after: \d+\s*$", out, re.M | re.I)
