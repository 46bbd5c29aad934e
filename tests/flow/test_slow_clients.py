"""slowhttptest opens more slow connections than one address may have; a client of another address is served meanwhile.

`--log-cli-level=INFO` shows how quickly.
"""

import logging
import shutil
import subprocess
import time
from pathlib import Path
from statistics import quantiles

import httpx
import pytest

from tests.flow.server import GENEROUS, running

log = logging.getLogger(__name__)

SLOWHTTPTEST = shutil.which("slowhttptest")

pytestmark = [
    pytest.mark.process,
    pytest.mark.long,
    pytest.mark.skipif(SLOWHTTPTEST is None, reason="no slowhttptest: apt-get install slowhttptest"),
]

ROUTE = '[[routes]]\nprefix = "/large"\ntarget = "asgi:tests.gateway.example_apps:large"\nauth = "none"\n'
SECONDS = 25
ATTACKS = {
    "slow headers": ["-H", "-i", "3"],
    "slow body": ["-B", "-i", "3", "-s", "100000", "-x", "10"],
    "slow read": ["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32"],
}


def read_for(seconds: float, client: httpx.Client, path: str) -> tuple[list[float], list[int]]:
    """A read every 20 ms: how long each took, and every status but 200."""
    took, refused = [], []
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        status = client.get(path).status_code
        took.append(time.monotonic() - began)
        if status != 200:
            refused.append(status)
        time.sleep(0.02)
    return took, refused


def told(took: list[float]) -> str:
    hundredths = [1e3 * each for each in quantiles(took, n=100)]
    return f"{len(took)} reads, p50 {hundredths[49]:.1f} ms, p99 {hundredths[98]:.1f} ms"


@pytest.mark.parametrize("attack", ATTACKS)
def test_others_are_served_throughout(tmp_path: Path, attack: str) -> None:
    with running(tmp_path, GENEROUS + ROUTE) as server:
        other = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(base_url=server.url, transport=other, timeout=60) as client:
            client.headers["Authorization"] = f"Bearer {server.token()}"
            user = client.post("/users", json={"name": "Ada", "email": "ada@example.com", "bio": ""}).json()
            path = f"/users/{user['id']}"
            calm, _ = read_for(5, client, path)
            command = [
                str(SLOWHTTPTEST), *ATTACKS[attack], "-c", "1500", "-r", "300", "-l", str(SECONDS),
                "-u", f"{server.url}/large", "-p", "5",
            ]  # fmt: skip
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as attacker:
                attacked, refused = read_for(SECONDS - 5, client, path)
                opened = server.metric("weir_connections_opened_total", listener="public")
                attacker.terminate()
            log.info("%s: before %s, under attack %s", attack, told(calm), told(attacked))
            assert refused == []
            assert opened > 600, "no attack worth the name"
            assert client.get(path).status_code == 200
        assert server.metric("weir_connection_faults_total") == 0
        assert server.stop() == 0
