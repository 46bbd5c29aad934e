"""Load over TLS by h2load, closed loop: HTTP/1.1 (a request at a time on each connection) or HTTP/2."""

import re

from bench.driving import Result, run
from bench.load import ORIGIN
from bench.peers.http_peer import HttpPeer
from bench.process import Failed
from bench.registry import Session
from bench.tools import tool

H2_STREAMS = 8  # of each connection; there are as many fewer connections
RATE = re.compile(r"^finished in [^,]+, ([0-9.]+) req/s", re.MULTILINE)
REQUESTS = re.compile(r"^requests: \d+ total, (\d+) started, (\d+) done", re.MULTILINE)
STATUSES = re.compile(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", re.MULTILINE)
PROTOCOL = re.compile(r"^Application protocol: (\S+)", re.MULTILINE)


def closed_loop(peer: HttpPeer, session: Session, protocol: str) -> Result:
    """Reads by *protocol*, `http/1.1` or `h2`, with the session's number of requests under way."""
    warm = once(peer, session, protocol, session.warmup_s or 0.1)
    result = once(peer, session, protocol, session.seconds)
    return result | {key: warm[key] + result[key] for key in ("succeeded", "failed", "unanswered")}


def once(peer: HttpPeer, session: Session, protocol: str, seconds: float) -> Result:
    urls = session.folder / "urls"
    urls.write_text("\n".join(peer.url + path for path in peer.paths.read_text().split()))
    streams = H2_STREAMS if protocol == "h2" and session.connections >= H2_STREAMS else 1
    command = [tool("h2load"), f"--clients={session.connections // streams}", f"--duration={round(seconds * 1000)}ms"]
    command += [f"--max-concurrent-streams={streams}", f"--input-file={urls}", f"--npn-list={protocol}"]
    command += [f"--header=Authorization: Bearer {peer.token}", f"--header=Origin: {ORIGIN}"]
    out, cpu = run(command, session, seconds, {})
    rate, requests, statuses = RATE.search(out), REQUESTS.search(out), STATUSES.search(out)
    spoken = PROTOCOL.search(out)
    if rate is None or requests is None or statuses is None:
        raise Failed(f"h2load on {peer.url} measured nothing:\n{out.strip()}")
    if spoken is None or spoken[1] != protocol:
        raise Failed(f"{peer.url} does not speak {protocol}")
    started, done = map(int, requests.groups())
    good, *others = map(int, statuses.groups())
    return {
        "rate": float(rate[1]),
        "measured": good,
        "succeeded": good,
        "failed": sum(others),
        "failures": dict(zip(("3xx", "4xx", "5xx"), others, strict=True)) if any(others) else {},
        "client_cpu": cpu,
        "unanswered": started - done,  # when its time is over it hangs up
    }
