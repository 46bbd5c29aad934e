"""The whole flow on Redis, PostgreSQL and Kafka, beside the same on FastAPI. Run by name, or with `all`."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from bench.driving import closed_loop
from bench.peers.on_engines import OnEngines, WeirOnEngines
from bench.registry import Row, Sample, Session
from bench.rows.constant_rate import ahead_of, p99

PEERS = ("weir-engines", "fastapi-engines")
TIMES = 2.0
FRESH_PER_S = 12_000
"""How many users nobody has read are made for each second; nobody reads faster."""

Measure = Callable[[Any, Session], Sample]


def beside(measure: Measure) -> Measure:
    """With the processor time of the engines and of a consumers' process, after the load included."""

    def measured(peer: OnEngines, session: Session) -> Sample:
        before = beside_seconds(peer)
        sample = measure(peer, session)
        after, answered = beside_seconds(peer), max(1, sample.details["succeeded"])
        used = {key: round((after[key] - before[key]) / answered * 1e6, 1) for key in after}
        return replace(sample, details=sample.details | used)

    return measured


def beside_seconds(peer: OnEngines) -> dict[str, float]:
    """What runs beside the server has used so far, by the name of its detail."""
    seconds = {"engines_cpu_us": peer.engines.cpu_seconds()}
    if isinstance(peer, WeirOnEngines) and (consumers := peer.consumers_seconds()) is not None:
        seconds["consumers_cpu_us"] = consumers
    return seconds


def uncached(peer: OnEngines, session: Session) -> Sample:
    """Each user is read once, and nothing but the database has it."""
    count = int((session.warmup_s + session.seconds) * FRESH_PER_S)
    sample = closed_loop(peer, session, "read", peer.fresh(count))
    again = sample.details["succeeded"] > count
    return replace(sample, problems=[*sample.problems, "users were read twice"]) if again else sample


def saturated(mode: str) -> Measure:
    return beside(lambda peer, session: closed_loop(peer, session, mode))


def row(name: str, what: str, measure: Measure) -> Row:
    return Row(name, what, "req/s", PEERS, measure, default=False)


def paced(name: str, mode: str) -> Row:
    """Constant rate, from when each request was due."""
    measure = beside(partial(p99, mode=mode, rate_of=ahead_of(PEERS[1], TIMES)))
    what = f"p99 of {mode}s at {TIMES:g} x the maximum of {PEERS[1]}"
    return Row(name, what, "ms", PEERS[:1], measure, better="lower", default=False, needs=("vegeta",))


ROWS = (
    row("engines-reads", "GET /users/{id}, cached, on Redis, PostgreSQL and Kafka", saturated("read")),
    row("engines-uncached", "the same, every user for the first time", beside(uncached)),
    row("engines-writes", "POST /users: entity and outbox committed to the disk", saturated("write")),
    paced("engines-reads-2x", "read"),
    paced("engines-writes-2x", "write"),
    Row(
        "engines-workers",
        "cached reads by two workers, and by one",
        "req/s",
        ("weir-workers-2", "weir-workers-1"),
        saturated("read"),
        default=False,
        layouts=("unpinned",),
    ),
)
