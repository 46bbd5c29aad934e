"""The operator's subcommands for tokens and clients, and all of them together."""

import sys
from pathlib import Path

import click

from gateway.admin.console import Open, Run, config_option, line, runner
from gateway.admin.dead_letter_commands import dead_letter_commands
from gateway.admin.operations import Caller
from gateway.admin.store_commands import audit_commands, search_commands


def commands(open_operations: Open, default_config: Path) -> list[click.Command]:
    """The command groups `token`, `client`, `dlq`, `search` and `audit`."""
    run = runner(open_operations, default_config)
    return [*_auth_commands(run), dead_letter_commands(run), search_commands(run), audit_commands(run)]


def _auth_commands(run: Run) -> list[click.Command]:
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
                line(row, as_json, (row["client_id"], row["name"], " ".join(row["scopes"])))

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

    return [token, client]
