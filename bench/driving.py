"""One sample of an HTTP server: a client loads it from a process of its own, then its consumers catch up."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.peers.http_peer import HttpPeer
from bench.process import ROOT, Failed, pin
from bench.registry import Sample, Session

GIVE_UP_S = 20.0  # beyond the time that a client was told to load

Result = dict[str, Any]
"""What a client measured: `rate`, `measured`, `succeeded`, `failed`, `failures`, `unanswered` as in
`bench.load.Result`, and details of its own."""


def drive(peer: HttpPeer, session: Session, load: Callable[[], Result]) -> Sample:
    """A sample whose figure is the rate. *load* runs a client and returns what it measured."""
    assert peer.process is not None
    before, cpu = peer.backlog(), peer.process.cpu_seconds()
    result = load()
    cpu, busy = peer.process.cpu_seconds() - cpu, session.warmup_s + session.seconds
    peer.process.check()
    lag = peer.backlog()
    drained = peer.settle()
    peer.expected_audits += result["succeeded"]
    peer.uncertain_audits += result["unanswered"]
    problems = [f"{result['failed']} failed requests: {result['failures']}"] if result["failed"] else []
    if not result["measured"]:
        problems.append("nothing was measured")
    if drained is None:
        problems.append(f"the consumers did not catch up: {peer.backlog()} events behind")
    result |= {
        "lag_before": before,
        "lag_after": lag,
        "drain_s": None if drained is None else round(drained, 2),
        # What could go on for ever: the requests, over the time until their last event was consumed.
        "sustained": None if drained is None else round(result["succeeded"] / (busy + drained), 1),
        "server_cpu_us": round(cpu / max(1, result["succeeded"]) * 1e6, 1),
    }
    return Sample(result["rate"], result, problems)


def closed_loop(peer: HttpPeer, session: Session, mode: str, paths: Path | None = None) -> Sample:
    """`read` or `write` as fast as it answers; its rate is kept as the peer's maximum, unless it is of *paths*."""
    sample = drive(peer, session, lambda: python_load(peer, session, mode, paths=paths))
    if paths is None:
        session.maxima[session.peer, mode] = sample.figure
    return sample


def python_load(peer: HttpPeer, session: Session, mode: str, *more: str, paths: Path | None = None) -> Result:
    """Run `bench.load` with *more* arguments. What is read are *paths*, by default the peer's."""
    command = [sys.executable, "-m", "bench.load", mode, "--url", peer.url, "--warmup", str(session.warmup_s)]
    command += ["--connections", str(session.connections), "--seconds", str(session.seconds), *more]
    if mode == "read":
        command += ["--paths", str(paths or peer.paths)]
    out, _ = run(command, session, session.warmup_s + session.seconds, {"BENCH_TOKEN": peer.token})
    if not out:
        raise Failed(f"the load client failed on {mode} {peer.url}")
    result: Result = json.loads(out)
    return result


def run(
    command: Sequence[str], session: Session, seconds: float, env: Mapping[str, str], out: Path | None = None
) -> tuple[str, float]:
    """Run a client that loads for *seconds*, on the load's core; what it printed (or wrote to *out*), and its
    share of a core. Its exit code is for the caller to read from that. Raises `Failed` when it hangs."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with (
        (out or Path(os.devnull)).open("wb") as file,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=file if out else subprocess.PIPE,
        ) as child,
    ):
        pin(child.pid, session.layout.load_core)
        try:
            printed, _ = child.communicate(timeout=seconds + GIVE_UP_S)
        except BaseException as error:
            child.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failed(f"{' '.join(command[:4])} hung") from None
            raise
    after, took = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - started
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (printed or b"").decode(), round(used / took, 2)
