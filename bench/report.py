"""Samples to medians, ratios, and a table. Pure but for the table's console."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.table import Table

from bench.registry import Row, Sample

# Details shown beside the figure, where a row has them: key, heading, digits.
COLUMNS = (
    ("offered", "offered req/s", 0),
    ("p50_ms", "p50 ms", 1),
    ("p99_ms", "p99 ms", 1),
    ("max_ms", "max ms", 1),
    ("server_cpu_us", "server µs/req", 0),
    ("engines_cpu_us", "engines µs/req", 0),
    ("consumers_cpu_us", "consumers µs/req", 0),
    ("own_cpu_us", "own µs/event", 1),
    ("client_cpu", "client core", 2),
    ("upstream_cpu", "upstream core", 2),
    ("lag_after", "lag at end", 0),
    ("drain_s", "drained in s", 2),
    ("sustained", "sustained req/s", 0),
    ("refused_per_s", "refused/s", 0),
    ("unsent_per_s", "unsent/s", 0),
    ("rss_start", "MiB before", 0),
    ("rss_end", "MiB after", 0),
)


@dataclass(frozen=True)
class Summary:
    """The samples of one row, layout and peer: medians, and the figures' extremes."""

    row: str
    layout: str
    peer: str
    samples: int
    figure: float
    lowest: float
    highest: float
    details: dict[str, float]
    problems: tuple[str, ...]


def summarise(row: Row, layout: str, peer: str, samples: Sequence[Sample]) -> Summary:
    """*samples* holds at least one. A detail's median is of the samples that have it as a number."""
    figures = [sample.figure for sample in samples]
    numbers: dict[str, list[float]] = {}
    for sample in samples:
        for key, value in sample.details.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                numbers.setdefault(key, []).append(value)
    return Summary(
        row.name,
        layout,
        peer,
        len(samples),
        median(figures),
        min(figures),
        max(figures),
        {key: median(values) for key, values in numbers.items()},
        tuple(problem for sample in samples for problem in sample.problems),
    )


def advantage(row: Row, first: Summary, other: Summary) -> float | None:
    """How many times better *first* is than *other* (below 1: worse); None when a figure is 0."""
    better, worse = (first, other) if row.better == "higher" else (other, first)
    return better.figure / worse.figure if worse.figure and better.figure else None


def ratios(row: Row, peers: Sequence[str], summaries: Sequence[Summary]) -> dict[str, float]:
    """Per other peer of one layout: how many times better the first of *peers* is; nothing when it has no samples."""
    first, *others = summaries
    if first.peer != peers[0]:
        return {}
    found = {other.peer: advantage(row, first, other) for other in others}
    return {peer: round(ratio, 2) for peer, ratio in found.items() if ratio is not None}


Block = tuple[Row, Sequence[Summary], dict[str, float]]
Column = tuple[str, str, int]


def tables(blocks: Sequence[Block]) -> Iterator[Table]:
    """A table for the rows of each set of details, in the order of their first rows."""
    alike: dict[tuple[Column, ...], list[Block]] = {}
    for block in blocks:
        held = {key for summary in block[1] for key in summary.details}
        alike.setdefault(tuple(column for column in COLUMNS if column[0] in held), []).append(block)
    for columns, some in alike.items():
        yield table(some, columns)


def table(blocks: Sequence[Block], columns: Sequence[Column]) -> Table:
    """One block a row and layout, one line a peer; the first peer's line carries the ratios."""
    shown = Table(title="Medians (lowest to highest)", title_justify="left")
    for heading in ("row", "cores", "peer"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("figure", *(heading for _, heading, _ in columns)):
        shown.add_column(heading, justify="right")
    shown.add_column("ratio", no_wrap=True)
    for row, summaries, compared in blocks:
        for index, summary in enumerate(summaries):
            cells = [row.name, summary.layout] if index == 0 else ["", ""]
            figure = f"{number(summary.figure)} {row.unit}"
            if summary.samples > 1:
                figure += f"\n({number(summary.lowest)} to {number(summary.highest)})"
            details = [detail(summary.details, key, digits) for key, _, digits in columns]
            ratio = "\n".join(f"{value:.2f} x {peer}" for peer, value in compared.items())
            shown.add_row(*cells, summary.peer, figure, *details, ratio if index == 0 else "")
        shown.add_section()
    return shown


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def detail(details: dict[str, Any], key: str, digits: int) -> str:
    return f"{details[key]:,.{digits}f}" if key in details else "–"  # noqa: RUF001
