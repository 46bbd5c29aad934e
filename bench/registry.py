"""What is compared with what: shapes, and where rows and peers come from.

A *row* is one thing measured, for each of its peers. To add rows, add a module to `bench/rows/` with a
tuple `ROWS`; for a new peer, add a class to `PEERS` in `bench/peers/__init__.py`. Nothing else changes.
"""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Layout:
    """Which core the server has and which the load; None leaves the choice to the kernel."""

    name: str
    server_core: int | None = None
    load_core: int | None = None


@dataclass(frozen=True)
class Session:
    """One start of one peer: a fresh data folder, a layout, and how long to measure."""

    folder: Path
    layout: Layout
    warmup_s: float
    seconds: float
    connections: int
    thorough: bool
    """Also make the checks that take seconds (count every audit row)."""
    peer: str = ""
    maxima: dict[tuple[str, str], float] = field(default_factory=dict)
    """Requests/s that a saturated peer answered in this layout, by (peer, kind of request); the latest one.

    Later rows and sessions take their constant rates from it.
    """


@dataclass
class Sample:
    """One measurement. `figure` is what is compared; `problems` make the whole bench fail."""

    figure: float
    details: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class Peer(Protocol):
    """One side of a comparison. `start` and `stop` bracket a session; both may raise `Failed`, `start` also `Skipped`.

    `kind` says which rows it can take part in; `needs` are programs, see `bench/tools.py`.
    """

    kind: str
    needs: tuple[str, ...]

    def start(self, session: Session) -> None: ...

    def finish(self) -> list[str]:
        """The checks after the last row, while it still runs; returns problems."""
        ...

    def stop(self) -> None: ...


@dataclass(frozen=True)
class Row:
    """`measure(peer, session)` takes one sample; `peers` name the sides, the first is the one compared.

    `better` says whether a `higher` or a `lower` figure wins. `default` rows run without being asked for.
    A measure that raises `Skipped` takes its row out of the run.
    """

    name: str
    what: str
    unit: str
    peers: tuple[str, ...]
    measure: Callable[[Any, Session], Sample]
    better: str = "higher"
    default: bool = True
    layouts: tuple[str, ...] = ("pinned", "unpinned")
    """Those it is about, where the machine has them."""
    needs: tuple[str, ...] = ()
    """Programs of `bench/tools.py` without which the row is skipped."""
    once: bool = False
    """Too long to be repeated: measured in the first repeat alone."""


def all_rows() -> list[Row]:
    """The rows of every module in `bench/rows/`, in the order of the modules' names."""
    import bench.rows as package

    found: list[Row] = []
    for module in sorted(entry.name for entry in pkgutil.iter_modules(package.__path__)):
        found += importlib.import_module(f"bench.rows.{module}").ROWS
    names = [row.name for row in found]
    if len(set(names)) != len(names):
        raise ValueError(f"two rows have one name: {sorted(names)}")
    return found


def choose(rows: Sequence[Row], wanted: Sequence[str]) -> list[Row]:
    """The rows named, all of them for `all`, the default ones for nothing. Raises ValueError for an unknown name."""
    if not wanted:
        return [row for row in rows if row.default]
    if "all" in wanted:
        return list(rows)
    by_name = {row.name: row for row in rows}
    if unknown := [name for name in wanted if name not in by_name]:
        raise ValueError(f"no such row: {', '.join(unknown)}; there are {', '.join(by_name)}")
    return [by_name[name] for name in wanted]
