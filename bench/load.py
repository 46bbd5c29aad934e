"""A load generator for HTTP/1.1 that needs nothing but Python (uvloop is used when it is there).

    BENCH_TOKEN=… python -m bench.load read  --url http://127.0.0.1:8000 --paths paths.txt
    BENCH_TOKEN=… python -m bench.load write --url http://127.0.0.1:8000 --rate 200
    python -m bench.load read --url http://127.0.0.1:8000 --paths paths.txt       # neither a token nor an Origin

Closed loop (the default): each connection sends its next request when the last is answered; the figure
is the rate. Open loop (`--rate R`): requests are due at a constant rate whether or not the server keeps
up, and latency counts from when a request was *due*, so a stall shows in every request it delayed (no
coordinated omission). With `--shed` a request that is due while every connection is busy is not sent, and
503 is an answer and no failure: what an overload test wants. Prints one JSON object; exit code 1 when a
request failed.
"""

import argparse
import asyncio
import itertools
import json
import math
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from bench.http1 import Connection

GRACE_S = 5.0  # after the end, for answers still on their way
TICK_S = 0.001  # how often the open loop looks what is due: its error of measurement
RECONNECT_S = 0.05
CONNECTING = 64  # at once: more than a server's backlog would wait for the kernel to try again
PER_ADDRESS = 1000  # connections from one loopback address; then comes the next
ORIGIN = "https://app.example"


@dataclass(frozen=True)
class Plan:
    """`rate` 0 is the closed loop. Seconds of warm-up are driven like the others and not measured.

    `shed` (open loop): what finds no free connection is not sent, and 503 is no failure.
    """

    host: str
    port: int
    connections: int = 64
    warmup_s: float = 1.0
    seconds: float = 5.0
    rate: float = 0.0
    shed: bool = False


@dataclass(frozen=True)
class Result:
    """What one run measured. Latencies in ms, of 2xx answers alone; `failed` counts from the first request on."""

    rate: float
    """2xx answers a second in the measured time."""
    measured: int
    succeeded: int
    """2xx answers, warm-up included: what the server must have audited."""
    failed: int
    failures: dict[str, int]
    """By status, or by what became of the connection."""
    p50_ms: float
    p99_ms: float
    max_ms: float
    client_cpu: float
    """Share of one core that this client used; near 1 it is the client that was measured."""
    unanswered: int
    """Sent, and no answer came; part of `failed`."""
    refused: int
    """Answered 503 while shedding was allowed, warm-up included."""
    unsent: int
    """Due while every connection was busy, and given up; warm-up included."""


def percentile(ordered: list[float], share: float) -> float:
    """Nearest rank of an ascending list; 0 when it is empty."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else 0.0


class Load:
    """Drives a plan once. *next_request* gives the bytes to send. Raises OSError when nobody listens."""

    def __init__(self, plan: Plan, next_request: Callable[[], bytes]) -> None:
        self._plan, self._next, self._clock = plan, next_request, time.perf_counter
        self._latencies: list[float] = []
        self._failures: Counter[str] = Counter()
        self._succeeded = self._refused = self._unsent = self._unanswered = 0
        self._open: set[Connection] = set()
        self._idle: deque[Connection] = deque()
        self._due: deque[float] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._from = self._until = 0.0
        self._ended = False

    async def run(self) -> Result:
        plan = self._plan
        for first in range(0, plan.connections, CONNECTING):
            some = range(first, min(first + CONNECTING, plan.connections))
            await asyncio.gather(*(self._connect(number) for number in some))
        start = self._clock()
        self._from, self._until = start + plan.warmup_s, start + plan.warmup_s + plan.seconds
        if plan.rate:
            self._spawn(self._schedule(start))
        else:
            for _ in range(len(self._idle)):
                self._ready(self._idle.popleft())
        await asyncio.sleep(plan.warmup_s)
        cpu = time.process_time()
        await asyncio.sleep(self._until - self._clock())
        cpu = time.process_time() - cpu
        await self._finish()
        return self._result(cpu / plan.seconds)

    async def _schedule(self, start: float) -> None:
        """The open loop: the n-th request is due n/rate seconds after *start*, whatever happens."""
        rate, number = self._plan.rate, 0
        total = int(rate * (self._plan.warmup_s + self._plan.seconds))
        while number < total:
            now = self._clock()
            while number < total and (due := start + number / rate) <= now:
                self._due.append(due)
                number += 1
            for _ in range(min(len(self._idle), len(self._due))):
                self._ready(self._idle.popleft())
            if self._plan.shed:
                self._unsent += len(self._due)
                self._due.clear()
            await asyncio.sleep(TICK_S)

    def _ready(self, connection: Connection) -> None:
        """Give *connection* its next request, or let it wait for one."""
        if not connection.usable:
            return  # `_lost` opens another
        if self._plan.rate:
            if self._due:
                connection.send(self._next(), self._due.popleft())
            else:
                self._idle.append(connection)
        elif not self._from:
            self._idle.append(connection)
        elif (now := self._clock()) < self._until:
            connection.send(self._next(), now)

    def _answered(self, connection: Connection, status: int, since: float) -> None:
        now = self._clock()
        if 200 <= status < 300:
            self._succeeded += 1
            # At a rate that is kept, what was due; beyond it, what was done: no answer after the end is goodput.
            counted = since if self._plan.rate and not self._plan.shed else now
            if self._from <= counted < self._until:
                self._latencies.append(now - since)
        elif status == 503 and self._plan.shed:
            self._refused += 1
        else:
            self._failures[str(status)] += 1
        self._ready(connection)

    def _lost(self, number: int, connection: Connection, reason: str) -> None:
        self._open.discard(connection)
        if self._ended:
            return
        if reason:
            self._failures[reason] += 1
            self._unanswered += 1
        self._spawn(self._reconnect(number))

    async def _connect(self, number: int) -> None:
        connection = Connection(self._answered, partial(self._lost, number))
        plan = self._plan
        # Servers bound what one address may hold, so the first thousand come from 127.0.0.1, the next from .2, …
        local = (f"127.0.0.{1 + number // PER_ADDRESS}", 0) if plan.connections > PER_ADDRESS else None
        await asyncio.get_running_loop().create_connection(lambda: connection, plan.host, plan.port, local_addr=local)
        self._open.add(connection)
        self._ready(connection)

    async def _reconnect(self, number: int) -> None:
        while not self._ended:
            try:
                await self._connect(number)
            except OSError as error:
                self._failures[f"connect: {error.strerror}"] += 1
                await asyncio.sleep(RECONNECT_S)
            else:
                break

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self) -> None:
        """Wait for what is under way, at most `GRACE_S`; what is still open then has failed."""
        give_up = self._clock() + GRACE_S
        # Polled, so that answers pay for no bookkeeping while they are measured.
        while self._clock() < give_up and (self._due or any(connection.busy for connection in self._open)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self._ended = True
        waiting = sum(connection.busy for connection in self._open)
        self._unanswered += waiting
        if waiting or self._due:
            self._failures["unanswered"] += waiting + len(self._due)
        for task in tuple(self._tasks):
            task.cancel()
        for connection in tuple(self._open):
            connection.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _result(self, client_cpu: float) -> Result:
        ordered = sorted(self._latencies)
        return Result(
            rate=round(len(ordered) / self._plan.seconds, 1),
            measured=len(ordered),
            succeeded=self._succeeded,
            failed=self._failures.total(),
            failures=dict(self._failures),
            p50_ms=round(percentile(ordered, 0.50) * 1000, 3),
            p99_ms=round(percentile(ordered, 0.99) * 1000, 3),
            max_ms=round(percentile(ordered, 1.0) * 1000, 3),
            client_cpu=round(client_cpu, 2),
            unanswered=self._unanswered,
            refused=self._refused,
            unsent=self._unsent,
        )


def head(method: str, path: str, host: str, token: str) -> str:
    """The request line and the headers that all requests share; without a token those that need none."""
    start = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n"
    return f"{start}Authorization: Bearer {token}\r\nOrigin: {ORIGIN}\r\n" if token else start


def reads(host: str, token: str, paths: Iterable[str]) -> Iterator[bytes]:
    """The paths in turn, for ever."""
    return itertools.cycle([(head("GET", path, host, token) + "\r\n").encode() for path in paths])


def writes(host: str, token: str, path: str) -> Iterator[bytes]:
    """New users, each with a name and an address of its own; all requests are equally long."""
    run = os.urandom(4).hex()
    before = f'{{"name":"Bench {run} '
    between = f'","email":"{run}.'
    after = '@bench.example","bio":"Measures how long a write takes."}'
    length = len(before) + len(between) + len(after) + 2 * 9
    start = head("POST", path, host, token) + "Content-Type: application/json\r\n"
    template = f"{start}Content-Length: {length}\r\n\r\n{before}%09d{between}%09d{after}".encode()
    return (template % (number, number) for number in itertools.count())


def run(plan: Plan, requests: Iterator[bytes]) -> Result:
    """Run *plan* on uvloop, or on asyncio where there is none."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        from asyncio import new_event_loop
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(Load(plan, requests.__next__).run())


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("read", "write"))
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="scheme, host and port")
    parser.add_argument("--paths", type=Path, help="read: a file of paths to GET, one a line")
    parser.add_argument("--path", default="/users", help="write: where to POST users")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--warmup", type=float, default=1.0, metavar="S")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S")
    parser.add_argument("--rate", type=float, default=0.0, help="open loop: requests a second in all")
    parser.add_argument("--shed", action="store_true", help="with --rate: send nothing late, and allow 503")
    given = parser.parse_args(arguments)
    url, token = urlsplit(given.url), os.environ.get("BENCH_TOKEN", "")
    if url.scheme != "http" or url.hostname is None:
        parser.error("--url must be http://host[:port]")
    if given.mode == "read" and given.paths is None:
        parser.error("read needs --paths")
    if given.mode == "read":
        requests = reads(url.netloc, token, given.paths.read_text().split())
    else:
        requests = writes(url.netloc, token, given.path)
    plan = Plan(url.hostname, url.port or 80, given.connections, given.warmup, given.seconds, given.rate, given.shed)
    try:
        result = run(plan, requests)
    except OSError as error:
        print(f"load: {given.url}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(result)))
    return 1 if result.failed or not result.measured else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
