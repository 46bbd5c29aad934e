"""p99 at a constant rate, from when each request was due: a share of what the server can do, not a round number."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from bench.driving import closed_loop, drive
from bench.peers import PEERS
from bench.peers.http_peer import HttpPeer
from bench.process import Failed
from bench.registry import Row, Sample, Session
from bench.vegeta import constant_rate

SHARE, AHEAD = 0.7, 1.1


def own(peer: HttpPeer, session: Session, mode: str) -> float:
    """The rate at which *peer* is to be met: `SHARE` of its maximum, measured now when no row has done so."""
    known = session.maxima.get((session.peer, mode)) or closed_loop(peer, session, mode).figure
    return SHARE * known


def ahead_of(name: str, times: float) -> Callable[[HttpPeer, Session, str], float]:
    """*times* the maximum of the peer *name*, measured now (beside the idle server) when no session has done so."""

    def rate(_: HttpPeer, session: Session, mode: str) -> float:
        known = session.maxima.get((name, mode))
        return times * (maximum_of(name, session, mode) if known is None else known)

    return rate


def maximum_of(name: str, session: Session, mode: str) -> float:
    """Start the peer *name* and saturate it. Raises `Failed`."""
    folder = session.folder / name
    folder.mkdir()
    other, beside = PEERS[name](), replace(session, folder=folder, peer=name, thorough=False)
    assert isinstance(other, HttpPeer)
    try:
        other.start(beside)
        sample = closed_loop(other, beside, mode)
    finally:
        other.stop()
    if sample.problems:
        raise Failed(f"the maximum of {name}: {'; '.join(sample.problems)}")
    return sample.figure


def p99(peer: HttpPeer, session: Session, mode: str, rate_of: Callable[[HttpPeer, Session, str], float]) -> Sample:
    rate = rate_of(peer, session, mode)
    sample = drive(peer, session, lambda: constant_rate(peer, session, mode, rate))
    return replace(sample, figure=sample.details["p99_ms"])


def row(name: str, what: str, mode: str, rate_of: Callable[[HttpPeer, Session, str], float]) -> Row:
    measure = partial(p99, mode=mode, rate_of=rate_of)
    return Row(name, what, "ms", ("weir",), measure, better="lower", needs=("vegeta",))


ROWS = (
    row("reads-70", "p99 of cached reads at 70 % of the own maximum", "read", own),
    row("reads-110", "p99 of cached reads at 110 % of FastAPI's maximum", "read", ahead_of("fastapi", AHEAD)),
    row("writes-70", "p99 of durable writes at 70 % of the own maximum", "write", own),
)
