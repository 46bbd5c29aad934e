"""Constant-rate load by vegeta: requests are sent when they are due, however slowly the server answers.

A request that finds all connections busy waits for one, and the wait is part of its latency.
"""

import base64
import csv
import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bench.driving import Result, run
from bench.load import ORIGIN, percentile
from bench.peers.http_peer import HttpPeer
from bench.process import Failed
from bench.registry import Session
from bench.tools import tool

TIMEOUT_S = 10
# Its collections stop the one thread that a pinned client has; they are in the latencies it reports.
ENV = {"GOGC": "800"}


def constant_rate(peer: HttpPeer, session: Session, mode: str, rate: float) -> Result:
    """`read` or `write` at *rate* a second. Latencies in ms, of 2xx answers due after the warm-up."""
    rate, seconds = max(1, round(rate)), session.warmup_s + session.seconds
    targets, results = session.folder / "targets", session.folder / "vegeta"
    with targets.open("w") as out:
        out.writelines(lines_to_read(peer) if mode == "read" else lines_to_write(peer, int(rate * seconds) + 1))
    command = [tool("vegeta"), "attack", "-format=json", f"-targets={targets}", f"-rate={rate}/1s"]
    command += [f"-duration={seconds}s", f"-connections={session.connections}", f"-timeout={TIMEOUT_S}s"]
    command += [f"-max-connections={session.connections}", "-max-body=0"]
    _, cpu = run(command, session, seconds + TIMEOUT_S, ENV, results)
    return {"offered": rate, "client_cpu": cpu} | read_results(results, session)


def read_results(results: Path, session: Session) -> Result:
    latencies, failures = [], Counter[str]()
    succeeded = unanswered = begun = 0
    command = [tool("vegeta"), "encode", "--to=csv", str(results)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as csv_of:
        assert csv_of.stdout is not None
        for at, status, latency, _, _, error, *_ in csv.reader(csv_of.stdout):
            begun = begun or int(at)
            if not 200 <= int(status) < 300:
                failures[error[-60:] if status == "0" else status] += 1
                unanswered += status == "0"
                continue
            succeeded += 1
            if int(at) - begun >= session.warmup_s * 1e9:
                latencies.append(int(latency) / 1e6)
    if csv_of.returncode or not begun:
        raise Failed("vegeta left no results")
    latencies.sort()
    return {
        "rate": round(len(latencies) / session.seconds, 1),
        "measured": len(latencies),
        "succeeded": succeeded,
        "failed": failures.total(),
        "failures": dict(failures),
        "unanswered": unanswered,
        "p50_ms": round(percentile(latencies, 0.50), 3),
        "p99_ms": round(percentile(latencies, 0.99), 3),
        "max_ms": round(percentile(latencies, 1.0), 3),
    }


def lines_to_read(peer: HttpPeer) -> Iterator[str]:
    headers = {"Authorization": [f"Bearer {peer.token}"], "Origin": [ORIGIN]}
    for path in peer.paths.read_text().split():
        yield json.dumps({"method": "GET", "url": peer.url + path, "header": headers}) + "\n"


def lines_to_write(peer: HttpPeer, count: int) -> Iterator[str]:
    """*count* users, each with a name and an address of its own."""
    headers = {
        "Authorization": [f"Bearer {peer.token}"],
        "Origin": [ORIGIN],
        "Content-Type": ["application/json"],
    }
    for number in range(count):
        user = {"name": f"Bench {number:09}", "email": f"{number:09}@bench.example", "bio": "Measures a write."}
        body = base64.b64encode(json.dumps(user).encode()).decode()
        yield json.dumps({"method": "POST", "url": f"{peer.url}/users", "header": headers, "body": body}) + "\n"
