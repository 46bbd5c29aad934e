"""What the operator's subcommands share: how they reach the operations, ask, show progress and print.

They speak to `Operations`, in a running server or on the opened store: which one is the caller's business.
"""

import errno
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from backends.ports import stores
from gateway.admin.operations import Caller, OperationError

F = TypeVar("F", bound=Callable[..., Any])
Open = Callable[[Path], AbstractAsyncContextManager[Caller]]
"""Opens the operations of the server that a config file describes."""

Body = Callable[[Caller], Awaitable[int | None]]
"""What a command does; its exit code (None: 0)."""

Run = Callable[[Body], None]


def config_option(command: F) -> F:
    """`--config`, before, between or after the subcommand's names."""
    return click.option(
        "--config",
        "config",
        type=click.Path(path_type=Path),
        default=None,
        expose_value=False,
        callback=lambda context, _, value: (
            context.find_root().ensure_object(dict).__setitem__("config", value) if value is not None else None
        ),
        help="The settings file (default: config.toml beside supervisor.py).",
    )(command)


def runner(open_operations: Open, default_config: Path) -> Run:
    def run(body: Body) -> None:
        """Run *body* with the operations open. A refusal is one line and exit code 2."""
        path = click.get_current_context().find_root().ensure_object(dict).get("config") or default_config

        async def main() -> int | str:
            async with open_operations(path) as caller:
                try:
                    return await body(caller) or 0
                except OperationError as error:
                    return str(error)

        try:
            ended = trio.run(main)
        except OSError as error:
            if error.errno != errno.ENOSPC:  # EPIPE is click's: the reader has enough
                raise
            ended = f"cannot write the answer: {error.strerror}"
        if isinstance(ended, str):
            complain(ended)
            ended = 2
        if ended:
            sys.exit(ended)

    return run


def complain(message: str) -> None:
    click.echo(f"weir: {' '.join(message.split())}", err=True)


async def confirmed(question: str) -> bool:
    if not (sys.stdin and sys.stdin.isatty()):
        raise OperationError("not asking on a pipe: add --yes (or --dry-run to see what it would do)")
    return await trio.to_thread.run_sync(lambda: click.confirm(question))


@contextmanager
def progress_bar(what: str) -> Iterator[stores.Progress]:
    """A bar on a terminal's standard error; nothing elsewhere, and nothing of it stays."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def line(row: Any, as_json: bool, columns: Iterable[object]) -> None:
    """One record a line: tab-separated, never wrapped; line breaks in values are shown as spaces."""
    if as_json:
        click.echo(msgspec.json.encode(row).decode())
    else:
        click.echo("\t".join(" ".join(str(column).split()) for column in columns))
