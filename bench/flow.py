"""Compare Weir with its peers: start each in turn, measure the rows, take medians.

    python -m bench.flow [--quick] [--rows NAME ...] [--json FILE|-]

A session is one start of one peer on a fresh data folder; sessions alternate between peers (A B A B), so
that what else the machine does meets them alike. What a row or a peer needs and this machine has not is
named, and skipped. Exit code 1 when a request failed, consumers did not
catch up, audits are missing or a server did not start or stop as it should.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import Progress

from bench.peers import PEERS
from bench.process import ROOT, Failed, Skipped, raise_file_limit
from bench.registry import Layout, Peer, Row, Sample, Session, all_rows, choose
from bench.report import ratios, summarise, tables
from bench.tools import missing

BUSY_LOAD = 0.5


class Bench:
    """One run: the sessions still to do, the samples so far."""

    def __init__(self, given: argparse.Namespace, rows: list[Row], console: Console, records: TextIO) -> None:
        self._given, self._rows, self._console, self._records = given, rows, console, records
        self._samples: dict[tuple[str, str, str], list[Sample]] = defaultdict(list)
        self._problems: list[str] = []
        self._abandoned: set[str] = set()
        self._skipped: set[str] = set()
        self._maxima: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
        self._started = time.monotonic()
        self._layouts = layouts_of(given.layout)
        if given.layout != "unpinned" and not any(layout.name == "pinned" for layout in self._layouts):
            self._warn("one core (or no sched_setaffinity): server and load share it, unpinned figures only")
        for row in rows:
            if reason := missing(row.needs):
                self._skip(row, reason)
        for name in dict.fromkeys(peer for row in rows for peer in self._peers(row)):
            if reason := missing(PEERS[name]().needs):
                self._warn(f"{name} is skipped: {reason}")
                self._abandoned.add(name)

    def run(self) -> int:
        given, layouts = self._given, self._layouts
        self._record("machine", machine(given))
        rounds = [self._round(layout, repeat) for repeat in range(given.repeats) for layout in layouts]
        with Progress(console=self._console) as progress:
            task = progress.add_task("bench", total=sum(len(rows) for sessions in rounds for _, rows in sessions))
            for repeat in range(given.repeats):
                round_started = time.monotonic()
                for layout in layouts:
                    for peer, rows in self._round(layout, repeat):
                        progress.update(task, description=f"{peer}, {layout.name}, {repeat + 1}/{given.repeats}")
                        self._session(peer, layout, rows, repeat)
                        progress.advance(task, len(rows))
                if repeat + 1 < given.repeats and not self._time_for(time.monotonic() - round_started):
                    self._warn(f"--budget {given.budget:.0f} s is nearly used: {repeat + 1} of {given.repeats} repeats")
                    break
        self._summarise(layouts)
        for problem in self._problems:
            self._console.print(f"FAILED {problem}", style="red", markup=False)
        return 1 if self._problems else 0

    def _round(self, layout: Layout, repeat: int) -> list[tuple[str, list[Row]]]:
        """The sessions of one repeat in one layout: each peer, and all its rows. Who is compared comes last.

        So a row of the first peer can be about what the others could do a moment ago.
        """
        layouts = self._layouts
        rows = [row for row in self._rows if layout in suited(row, layouts) and not (row.once and repeat)]
        peers = dict.fromkeys(peer for row in rows for peer in self._peers(row))
        return [(peer, [row for row in rows if peer in self._peers(row)]) for peer in reversed(peers)]

    def _peers(self, row: Row) -> Sequence[str]:
        """The row's own, or those of `--peer` that are of their kind."""
        kind = PEERS[row.peers[0]]().kind
        return [name for name in self._given.peer if PEERS[name]().kind == kind] or row.peers

    def _session(self, name: str, layout: Layout, rows: Sequence[Row], repeat: int) -> None:
        """Start a peer, measure *rows*, stop it. A peer that failed, or that cannot be had, is not tried again."""
        rows = [row for row in rows if row.name not in self._skipped]
        if name in self._abandoned or not rows:
            return
        given = self._given
        where = f"{name}, {layout.name}"
        with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
            times = given.warmup, given.seconds, given.connections
            session = Session(Path(folder), layout, *times, repeat == 0, name, self._maxima[layout.name])
            peer = PEERS[name]()
            try:
                try:
                    peer.start(session)
                    for row in rows:
                        self._measure(row, peer, session, repeat)
                    self._problems += [f"{where}: {problem}" for problem in peer.finish()]
                finally:
                    peer.stop()
            except Skipped as reason:
                self._warn(f"{name} is skipped: {reason}")
                self._abandoned.add(name)
            except (Failed, OSError) as error:
                self._problems.append(f"{where}: {error}")
                self._abandoned.add(name)

    def _measure(self, row: Row, peer: Peer, session: Session, repeat: int) -> None:
        try:
            sample = row.measure(peer, session)
        except Skipped as reason:
            self._skip(row, str(reason))
        else:
            self._keep(row, session.peer, session.layout, repeat, sample)

    def _skip(self, row: Row, reason: str) -> None:
        self._skipped.add(row.name)
        self._warn(f"row {row.name} is skipped: {reason}")

    def _keep(self, row: Row, peer: str, layout: Layout, repeat: int, sample: Sample) -> None:
        self._samples[row.name, layout.name, peer].append(sample)
        self._problems += [f"{row.name}, {peer}, {layout.name}: {problem}" for problem in sample.problems]
        place = {"row": row.name, "peer": peer, "layout": layout.name, "repeat": repeat, "unit": row.unit}
        self._record("sample", place | asdict(sample))

    def _summarise(self, layouts: Sequence[Layout]) -> None:
        blocks = []
        for row in self._rows:
            peers = self._peers(row)
            for layout in suited(row, layouts):
                known = [(peer, self._samples[row.name, layout.name, peer]) for peer in peers]
                summaries = [summarise(row, layout.name, peer, samples) for peer, samples in known if samples]
                if not summaries:
                    continue
                compared = ratios(row, peers, summaries)
                blocks.append((row, summaries, compared))
                for summary in summaries:
                    self._record("summary", asdict(summary) | {"unit": row.unit})
                self._record("ratios", {"row": row.name, "layout": layout.name, "of": peers[0], "to": compared})
        for shown in tables(blocks):
            self._console.print(shown)

    def _time_for(self, seconds: float) -> bool:
        return time.monotonic() - self._started + seconds < self._given.budget

    def _warn(self, text: str) -> None:
        self._console.print(f"bench: {text}", style="yellow", markup=False, soft_wrap=True)

    def _record(self, kind: str, values: dict[str, Any]) -> None:
        print(json.dumps({"kind": kind} | values), file=self._records, flush=True)


def layouts_of(wanted: str) -> list[Layout]:
    """Of *wanted* (`both` or a name) those that this machine has: with one core there is only `unpinned`."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    free = Layout("unpinned")
    if len(cores) < 2:
        return [free]
    return [layout for layout in (Layout("pinned", cores[0], cores[1]), free) if wanted in ("both", layout.name)]


def suited(row: Row, layouts: Sequence[Layout]) -> Sequence[Layout]:
    """Those of *layouts* that *row* is about; without any the first, which is all the machine or the call allows."""
    return [layout for layout in layouts if layout.name in row.layouts] or layouts[:1]


def machine(given: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "seconds": given.seconds,
        "warmup": given.warmup,
        "connections": given.connections,
    }


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.flow", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one repeat of 1 s: does it work, not how fast is it")
    parser.add_argument("--rows", nargs="+", default=[], metavar="NAME", help="these rows, or `all` (see --list)")
    parser.add_argument("--peer", action="append", default=[], choices=sorted(PEERS), help="instead of the rows' own")
    parser.add_argument("--layout", choices=("both", "pinned", "unpinned"), default="both")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="measured, per row and repeat")
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--budget", type=float, default=540.0, help="seconds after which no further repeat begins")
    parser.add_argument("--json", default="", metavar="FILE", help="where the JSON lines go; - is stdout")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    given = parser.parse_args(arguments)
    if given.quick:
        given.repeats, given.seconds, given.warmup = 1, 1.0, 0.3
    if given.repeats < 1 or given.seconds <= 0 or given.warmup < 0 or given.connections < 1:
        parser.error("--repeats and --connections start at 1, --seconds above 0, --warmup at 0")
    try:
        given.chosen = choose(all_rows(), given.rows)
    except ValueError as error:
        parser.error(str(error))
    return given


@contextmanager
def record_file(name: str) -> Iterator[TextIO]:
    """The file for the JSON lines; by default a new one in bench/results/."""
    if name == "-":
        yield sys.stdout
        return
    path = Path(name) if name else ROOT / "bench" / "results" / time.strftime("flow-%Y%m%d-%H%M%S.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as out:
        yield out
    print(f"bench: samples are in {path}", file=sys.stderr)


def main(arguments: Sequence[str]) -> int:
    given = parse(arguments)
    if given.list:
        for row in all_rows():
            print(f"{row.name:<18}{'' if row.default else '(on request) '}{row.what}; {', '.join(row.peers)}")
        return 0
    raise_file_limit()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that children are ended
    # Wide enough for the table when piped; the JSON lines keep stdout for themselves.
    console = Console(stderr=given.json == "-", width=None if sys.stdout.isatty() else 200)
    if os.getloadavg()[0] > BUSY_LOAD:
        console.print(f"bench: load average {os.getloadavg()[0]:.2f}: something else runs here", style="yellow")
    with record_file(given.json) as records:
        return Bench(given, given.chosen, console, records).run()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
