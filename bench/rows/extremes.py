"""What a server holds: connections that do nothing, and more requests than it can answer."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

from bench.driving import closed_loop, drive, python_load
from bench.http1 import read_answer
from bench.load import head
from bench.peers.http_peer import HttpPeer
from bench.process import Failed, Process, raise_file_limit
from bench.registry import Row, Sample, Session

IDLE = 10_000
SPARE_FILES = 500
OVERLOAD_S, QUICK_OVERLOAD_S = 30.0, 3.0
TIMES = 2
WATCH_S = 0.5
GROWN = 1.2, 32.0  # memory is flat when it grows by no more than this factor, or by no more MiB


def idle(peer: HttpPeer, session: Session) -> Sample:
    """Memory of the server for each of `IDLE` connections that have had one answer and stay open, in KiB.

    As many requests go over one connection first: what they fill (caches, audits) is not the connections'.
    The kernel's buffers are not part of it: nothing is on its way.
    """
    raise_file_limit(IDLE + SPARE_FILES)
    assert peer.process is not None
    url = urlsplit(peer.url)
    address = url.hostname or "", url.port or 80
    paths = peer.paths.read_text().split()
    requests = [(head("GET", path, url.netloc, peer.token) + "\r\n").encode() for path in paths]

    def opened() -> socket.socket:
        return stack.enter_context(socket.create_connection(address, timeout=10))

    with ExitStack() as stack:
        held = opened()
        for number in range(IDLE):
            if not ask(held, requests[number % len(requests)]):
                held = opened()
        peer.settle()
        before, started = peer.process.resident(), time.monotonic()
        for number in range(IDLE):
            held = opened()
            if not ask(held, requests[number % len(requests)]):
                raise Failed("a connection was closed that should stay open")
        took = time.monotonic() - started
        drained = peer.settle()
        peer.process.check()
        after = peer.process.resident()
        ask(held, requests[0])  # they are still served
    peer.expected_audits += 2 * IDLE + 1
    problems = [] if drained is not None else ["the consumers did not catch up"]
    details = {"rss_start": mib(before), "rss_end": mib(after), "opened_per_s": round(IDLE / took, 1)}
    return Sample((after - before) / IDLE / 1024, details, problems)


def ask(connection: socket.socket, request: bytes) -> bool:
    """One request, one answer; whether the connection stays open. Raises `Failed` unless it is 200."""
    connection.sendall(request)
    data = b""
    while (answer := read_answer(data)) is None:
        if not (more := connection.recv(65_536)):
            raise Failed("a connection was closed before it had its answer")
        data += more
    if answer.status != 200:
        raise Failed(f"answered {answer.status}")
    return not answer.close


def overload(peer: HttpPeer, session: Session, connections: int) -> Sample:
    """Goodput in % of the maximum while twice the maximum is offered.

    A connection carries one request at a time, and what is due while all are busy is not sent: so *connections*
    bounds how many requests wait in the server. 503 is a good answer here; it is counted as `refused`.
    Memory is looked at when a third of the time is over, the connections being open, and at the end.
    """
    raise_file_limit(connections + SPARE_FILES)
    assert peer.process is not None
    maximum = closed_loop(peer, session, "read")
    seconds = OVERLOAD_S if session.seconds >= 2 else QUICK_OVERLOAD_S
    crowd, rate = replace(session, connections=connections, seconds=seconds), maximum.figure * TIMES
    load = partial(python_load, peer, crowd, "read", "--rate", str(round(rate)), "--shed")
    with watched(peer.process) as memory:
        sample = drive(peer, crowd, load)
    before, after, busy = memory[len(memory) // 3], memory[-1], session.warmup_s + seconds
    problems = maximum.problems + sample.problems
    if after > before * GROWN[0] and after - before > GROWN[1] * 2**20:
        problems.append(f"memory grew from {mib(before)} to {mib(after)} MiB")
    details = sample.details | {
        "offered": round(rate),
        "refused_per_s": round(sample.details["refused"] / busy),
        "unsent_per_s": round(sample.details["unsent"] / busy),
        "rss_start": mib(before),
        "rss_end": mib(after),
    }
    return Sample(100 * sample.figure / maximum.figure if maximum.figure else 0.0, details, problems)


@contextmanager
def watched(process: Process) -> Iterator[list[int]]:
    """The resident memory of *process*, each `WATCH_S` until the block ends, and then."""
    seen, ended = [process.resident()], threading.Event()

    def watch() -> None:
        while not ended.wait(WATCH_S):
            seen.append(process.resident())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield seen
    finally:
        ended.set()
        watching.join()
        seen.append(process.resident())


def mib(size: int) -> float:
    return round(size / 2**20, 1)


ROWS = (
    Row(
        "idle-10000",
        f"memory of each of {IDLE:,} idle keep-alive connections",
        "KiB",
        ("weir-many",),
        idle,
        better="lower",
        default=False,
        layouts=("pinned",),
        once=True,
    ),
    Row(
        "overload",
        f"goodput at {TIMES} x the maximum on 1,000 connections of one address",
        "% of max",
        ("weir",),
        partial(overload, connections=1000),
        default=False,
        once=True,
    ),
    Row(
        "overload-4000",
        f"goodput at {TIMES} x the maximum on 4,000 connections of four addresses",
        "% of max",
        ("weir",),
        partial(overload, connections=4000),
        default=False,
        once=True,
    ),
)
