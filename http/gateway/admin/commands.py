"""The operator's subcommands for tokens, clients and dead letters.

They speak to `Operations`, in a running server or on the opened store: which one is the caller's business.
"""

import errno
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
import trio
from rich.console import Console
from rich.progress import Progress

from gateway.admin.operations import Caller, OperationError

F = TypeVar("F", bound=Callable[..., Any])
Open = Callable[[Path], AbstractAsyncContextManager[Caller]]
"""Opens the operations of the server that a config file describes."""

# So many dead letters are replayed or dropped a call: the progress bar moves, and a broken call repeats little.
CHUNK = 100


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


def commands(open_operations: Open, default_config: Path) -> list[click.Command]:
    """The command groups `token`, `client` and `dlq`."""

    def run(body: Callable[[Caller], Awaitable[None]]) -> None:
        """Run *body* with the operations open. A refusal is one line and exit code 2."""
        path = click.get_current_context().find_root().ensure_object(dict).get("config") or default_config

        async def main() -> str | None:
            async with open_operations(path) as caller:
                try:
                    await body(caller)
                except OperationError as error:
                    return str(error)
            return None

        try:
            refusal = trio.run(main)
        except OSError as error:
            if error.errno != errno.ENOSPC:  # EPIPE is click's: the reader has enough
                raise
            refusal = f"cannot write the answer: {error.strerror}"
        if refusal is not None:
            click.echo(f"weir: {refusal}", err=True)
            sys.exit(2)

    @click.group()
    @config_option
    def token() -> None:
        """Issue and revoke access tokens."""

    @token.command("issue")
    @click.option("--subject", required=True, help="Whom the token stands for.")
    @click.option("--scope", "scopes", multiple=True, help="A scope it grants; may be given several times.")
    @click.option("--ttl", default="24h", show_default=True, help="How long it lives: 90s, 15m, 1h, 7d.")
    @config_option
    def token_issue(subject: str, scopes: tuple[str, ...], ttl: str) -> None:
        """Print a new token, and nothing else."""

        async def body(caller: Caller) -> None:
            issued = await caller.call("token.issue", {"subject": subject, "scopes": list(scopes), "ttl": ttl})
            click.echo(issued["token"])

        run(body)

    @token.command("revoke")
    @click.argument("token", required=False)
    @config_option
    def token_revoke(token: str | None) -> None:
        """Revoke TOKEN; without the argument it is read from standard input."""
        piped = token is None or token == "-"  # noqa: S105
        value = sys.stdin.readline().strip() if piped and sys.stdin else token or ""

        async def body(caller: Caller) -> None:
            await caller.call("token.revoke", {"token": value})
            click.echo("revoked")

        run(body)

    @click.group()
    @config_option
    def client() -> None:
        """Manage OAuth clients (client credentials grant)."""

    @client.command("create")
    @click.option("--name", required=True, help="What it is called in lists.")
    @click.option("--scope", "scopes", multiple=True, help="A scope it may ask for; may be given several times.")
    @config_option
    def client_create(name: str, scopes: tuple[str, ...]) -> None:
        """Print the new client's id and secret. The secret is shown this once."""

        async def body(caller: Caller) -> None:
            made = await caller.call("client.create", {"name": name, "scopes": list(scopes)})
            click.echo(f"client_id={made['client_id']}\nclient_secret={made['client_secret']}")

        run(body)

    @client.command("list")
    @click.option("--json", "as_json", is_flag=True, help="JSON lines.")
    @config_option
    def client_list(as_json: bool) -> None:
        """One client a line, its id first."""

        async def body(caller: Caller) -> None:
            for row in await caller.call("client.list", {}):
                _line(row, as_json, (row["client_id"], row["name"], " ".join(row["scopes"])))

        run(body)

    @client.command("delete")
    @click.argument("client_id")
    @config_option
    def client_delete(client_id: str) -> None:
        """Delete a client. Tokens it already has live on until they expire or are revoked."""

        async def body(caller: Caller) -> None:
            await caller.call("client.delete", {"client_id": client_id})
            click.echo("deleted")

        run(body)

    return [token, client, _dead_letter_commands(run)]


def _dead_letter_commands(run: Callable[[Callable[[Caller], Awaitable[None]]], None]) -> click.Command:
    @click.group()
    @config_option
    def dlq() -> None:
        """Inspect, replay and drop dead letters. An id is topic/partition/offset."""

    @dlq.command("list")
    @click.option("--group", default=None, help="Only this consumer group's.")
    @click.option("--type", "type_", default=None, help="Only events of this type.")
    @click.option("--json", "as_json", is_flag=True, help="JSON lines.")
    @config_option
    def dlq_list(group: str | None, type_: str | None, as_json: bool) -> None:
        """One dead letter a line, its id first."""

        async def body(caller: Caller) -> None:
            for row in await _listed(caller, group, type_):
                _line(
                    row,
                    as_json,
                    (row["id"], row["group"], row["type"], f"attempts={row['attempts']}", row["at"], row["reason"]),
                )

        run(body)

    @dlq.command("show")
    @click.argument("id")
    @config_option
    def dlq_show(id: str) -> None:
        """Everything about one dead letter, as JSON."""

        async def body(caller: Caller) -> None:
            shown = await caller.call("dlq.show", {"id": id})
            click.echo(msgspec.json.format(msgspec.json.encode(shown)).decode())

        run(body)

    def act(name: str, verb: str, done: str, help: str) -> None:
        @dlq.command(name, help=help)
        @click.argument("ids", nargs=-1)
        @click.option("--all", "everything", is_flag=True, help="Every dead letter of every group, or of the filters.")
        @click.option("--group", default=None, help="With --all: only this consumer group's.")
        @click.option("--type", "type_", default=None, help="With --all: only events of this type.")
        @click.option("--yes", is_flag=True, help="Do not ask.")
        @click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
        @config_option
        def command(
            ids: tuple[str, ...], everything: bool, group: str | None, type_: str | None, yes: bool, dry_run: bool
        ) -> None:
            if bool(ids) == everything:
                raise click.UsageError("give ids, or --all")
            if ids and (group or type_):
                raise click.UsageError("--group and --type go with --all")

            async def body(caller: Caller) -> None:
                chosen = list(ids) or [row["id"] for row in await _listed(caller, group, type_)]
                if dry_run:
                    for id in ids:
                        await caller.call("dlq.show", {"id": id})  # says so if there is none
                    for id in chosen:
                        click.echo(id)
                    return
                if everything and chosen and not yes and not await _confirmed(f"{verb} {len(chosen)} dead letters?"):
                    click.echo("nothing was done", err=True)
                    return
                click.echo(f"{done} {await _in_chunks(caller, f'dlq.{name}', verb, chosen)}")

            run(body)

    act("replay", "replay", "replayed", "Give dead letters to their consumer group once more.")
    act("drop", "drop", "dropped", "Delete dead letters for good.")
    return dlq


async def _listed(caller: Caller, group: str | None, type_: str | None) -> list[dict[str, Any]]:
    return list(await caller.call("dlq.list", {"group": group, "type": type_}))


async def _in_chunks(caller: Caller, operation: str, verb: str, ids: list[str]) -> int:
    done = 0
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(verb, total=len(ids))
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            done += (await caller.call(operation, {"ids": chunk}))["count"]
            progress.advance(task, len(chunk))
    return done


async def _confirmed(question: str) -> bool:
    if not (sys.stdin and sys.stdin.isatty()):
        raise OperationError("not asking on a pipe: add --yes (or --dry-run to see what it would do)")
    return await trio.to_thread.run_sync(lambda: click.confirm(question))


def _line(row: dict[str, Any], as_json: bool, columns: Iterable[str]) -> None:
    """One record a line: tab-separated, never wrapped; line breaks in values are shown as spaces."""
    if as_json:
        click.echo(msgspec.json.encode(row).decode())
    else:
        click.echo("\t".join(" ".join(str(column).split()) for column in columns))
