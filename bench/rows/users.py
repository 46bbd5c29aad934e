"""The flow of the source on users: cached reads and durable writes, full speed and at a constant rate."""

import dataclasses
import json
import os
import subprocess
import sys

from bench.peers.http_peer import HttpPeer
from bench.process import ROOT, Failed, pin
from bench.registry import Row, Sample, Session

BOTH = ("weir", "fastapi")
READ_RATE, WRITE_RATE = 1000, 200


def drive(peer: HttpPeer, session: Session, mode: str, rate: float = 0.0) -> Sample:
    """Load *peer* with a client process of its own, then watch its consumers catch up."""
    assert peer.process is not None
    before, cpu = peer.backlog(), peer.process.cpu_seconds()
    result = client(peer, session, mode, rate)
    cpu = peer.process.cpu_seconds() - cpu
    peer.process.check()
    lag = peer.backlog()
    drained = peer.settle()
    peer.expected_audits += result["succeeded"]
    problems = [f"{result['failed']} failed requests: {result['failures']}"] if result["failed"] else []
    if not result["measured"]:
        problems.append("nothing was measured")
    if drained is None:
        problems.append(f"the consumers did not catch up: {peer.backlog()} events behind")
    busy = session.warmup_s + session.seconds
    result |= {
        "lag_before": before,
        "lag_after": lag,
        "drain_s": None if drained is None else round(drained, 2),
        # What could go on for ever: the requests, over the time until their last event was consumed.
        "sustained": None if drained is None else round(result["succeeded"] / (busy + drained), 1),
        "server_cpu_us": round(cpu / max(1, result["succeeded"]) * 1e6, 1),
    }
    return Sample(result["rate"], result, problems)


def client(peer: HttpPeer, session: Session, mode: str, rate: float) -> dict[str, object]:
    """Run `bench.load` and return what it printed."""
    command = [sys.executable, "-m", "bench.load", mode, "--url", peer.url, "--connections", str(session.connections)]
    command += ["--warmup", str(session.warmup_s), "--seconds", str(session.seconds), "--rate", str(rate)]
    if mode == "read":
        command += ["--paths", str(peer.paths)]
    env = {**os.environ, "BENCH_TOKEN": peer.token}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE) as child:
        pin(child.pid, session.layout.load_core)
        try:
            out, _ = child.communicate(timeout=session.warmup_s + session.seconds + 20)
        except BaseException as error:
            child.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failed(f"the load client hung on {mode} {peer.url}") from None
            raise
    if not out:
        raise Failed(f"the load client failed on {mode} {peer.url}")
    result: dict[str, object] = json.loads(out)
    return result


def at_rate(peer: HttpPeer, session: Session, mode: str, rate: int) -> Sample:
    """As `drive`, at a constant rate; the figure is the p99 from when each request was due."""
    sample = drive(peer, session, mode, rate)
    return dataclasses.replace(sample, figure=sample.details["p99_ms"])


ROWS = (
    Row("reads", "GET /users/{id}, cached", "req/s", BOTH, lambda p, s: drive(p, s, "read")),
    Row("writes", "POST /users, durable", "req/s", BOTH, lambda p, s: drive(p, s, "write")),
    Row(
        f"reads-{READ_RATE}",
        f"cached reads at a constant {READ_RATE}/s: p99",
        "ms",
        BOTH,
        lambda p, s: at_rate(p, s, "read", READ_RATE),
        better="lower",
        default=False,
    ),
    Row(
        f"writes-{WRITE_RATE}",
        f"durable writes at a constant {WRITE_RATE}/s: p99",
        "ms",
        BOTH,
        lambda p, s: at_rate(p, s, "write", WRITE_RATE),
        better="lower",
        default=False,
    ),
)
