"""The operator's subcommands for the search index and the audit trail."""

from pathlib import Path
from typing import Any

import click
import msgspec

from gateway.admin.console import Run, complain, config_option, line, progress_bar
from gateway.admin.operations import Caller


def search_commands(run: Run) -> click.Command:
    @click.group()
    @config_option
    def search() -> None:
        """The search index."""

    @search.command("reindex")
    @config_option
    def search_reindex() -> None:
        """Build the search index anew from the database. The old one answers until the new one is there."""

        async def body(caller: Caller) -> None:
            with progress_bar("indexing") as progress:
                done = await caller.call("search.reindex", {}, progress)
            click.echo(f"indexed {done['documents']}")
            for id in done["skipped"]:
                complain(f"user {id} was left out: its stored document is none that can be searched")

        run(body)

    return search


def audit_commands(run: Run) -> click.Command:
    @click.group()
    @config_option
    def audit() -> None:
        """The audit trail."""

    @audit.command("head")
    @config_option
    def audit_head() -> None:
        """Print the last row of every chain, signed, as one line of JSON. Keep it where the trail is not."""

        async def body(caller: Caller) -> None:
            click.echo(msgspec.json.encode(await caller.call("audit.head", {})).decode())

        run(body)

    @audit.command("verify")
    @click.option(
        "--head", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
        default=None, help="A signed head of earlier (`audit head`): the trail must still hold it. - reads a pipe.",
    )  # fmt: skip
    @click.option("--json", "as_json", is_flag=True, help="The verdict as JSON.")
    @config_option
    def audit_verify(head: Path | None, as_json: bool) -> None:
        """Check that no row of the audit trail was changed, removed or moved.

        Exit code 0: it is whole. 1: it is broken; the first broken row of each chain is named.
        """
        known = None if head is None else _read(head)

        async def body(caller: Caller) -> int:
            with progress_bar("verifying") as progress:
                verdict = await caller.call("audit.verify", {"head": known}, progress)
            if as_json:
                click.echo(msgspec.json.encode(verdict).decode())
            else:
                for broken in verdict["broken"]:
                    line(broken, False, (f"{broken['chain']}/{broken['sequence']}", broken["what"]))
                if verdict["whole"]:
                    click.echo(f"whole: {verdict['rows']} rows in {len(verdict['heads'])} chains")
            return 0 if verdict["whole"] else 1

        run(body)

    return audit


def _read(path: Path) -> dict[str, Any]:
    try:
        with click.open_file(str(path), "rb") as file:
            return msgspec.json.decode(file.read(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path}: no signed head: {error}") from None
