"""The operator's subcommands for dead letters."""

from collections.abc import Callable
from typing import Any

import click
import msgspec

from gateway.admin.console import F, Run, complain, config_option, confirmed, line, progress_bar
from gateway.admin.operations import Caller

# So many ids go with a call: far below what a request's body may hold.
IDS_A_CALL = 5000


def _filters(command: F) -> F:
    for decorate in (
        click.option("--reason", default=None, metavar="TEXT", help="Only those whose exception or message holds it."),
        click.option("--type", "type", default=None, help="Only events of this type."),
        click.option("--group", default=None, help="Only this consumer group's."),
    ):
        command = decorate(command)
    return command


def dead_letter_commands(run: Run) -> click.Command:
    @click.group()
    @config_option
    def dlq() -> None:
        """Inspect, replay and drop dead letters. An id is topic/partition/offset."""

    @dlq.command("list")
    @_filters
    @click.option("--reasons", is_flag=True, help="How many there are of each kind, the commonest first.")
    @click.option("--json", "as_json", is_flag=True, help="JSON lines.")
    @config_option
    def dlq_list(reasons: bool, as_json: bool, **filters: str | None) -> None:
        """One dead letter a line, its id first."""

        async def body(caller: Caller) -> None:
            if reasons:
                for row in await caller.call("dlq.reasons", filters):
                    columns = ("count", "group", "type", "exception", "first", "last", "example")
                    line(row, as_json, (row[name] for name in columns))
                return
            for row in await caller.call("dlq.list", filters):
                counts = f"attempts={row['attempts']} replays={row['replays']}"
                counts += " quarantined" if row["quarantined"] else ""
                line(row, as_json, (row["id"], row["group"], row["type"], counts, row["at"], row["reason"]))

        run(body)

    @dlq.command("show")
    @click.argument("id")
    @config_option
    def dlq_show(id: str) -> None:
        """Everything about one dead letter, as JSON: its event, why it failed, when first and last, how often."""

        async def body(caller: Caller) -> None:
            shown = await caller.call("dlq.show", {"id": id})
            click.echo(msgspec.json.format(msgspec.json.encode(shown)).decode())

        run(body)

    @dlq.command("replay")
    @_targets
    @click.option("--rate", type=float, default=None, help="At most so many a second.")
    @click.option("--force", is_flag=True, help="Those that are quarantined too.")
    @config_option
    def dlq_replay(rate: float | None, force: bool, **targets: Any) -> None:
        """Give dead letters to their consumer group once more.

        One that was replayed several times (consumers.max_replays) and failed again is quarantined: it stays.
        """
        _act(run, "replay", "replayed", targets, {"rate": rate, "force": force})

    @dlq.command("drop")
    @_targets
    @config_option
    def dlq_drop(**targets: Any) -> None:
        """Delete dead letters for good."""
        _act(run, "drop", "dropped", targets, {})

    return dlq


def _targets(command: F) -> F:
    for decorate in (
        click.option("--dry-run", is_flag=True, help="Print the ids that it would be done to, and do nothing."),
        click.option("--yes", is_flag=True, help="Do not ask."),
        _filters,
        click.option("--all", "everything", is_flag=True, help="Every dead letter of every group, or of the filters."),
        click.argument("ids", nargs=-1),
    ):
        command = decorate(command)
    return command


def _act(run: Callable[..., None], verb: str, done: str, targets: dict[str, Any], options: dict[str, Any]) -> None:
    ids, everything, yes, dry_run = (targets.pop(name) for name in ("ids", "everything", "yes", "dry_run"))
    filters = targets
    if bool(ids) == everything:
        raise click.UsageError("give ids, or --all")
    if ids and any(filters.values()):
        raise click.UsageError("--group, --type and --reason go with --all")

    async def body(caller: Caller) -> int | None:
        # Chosen before the question, so that what is done is what was asked about.
        chosen = list(ids) or [row["id"] for row in await caller.call("dlq.list", filters)]
        if (
            everything
            and chosen
            and not (yes or dry_run)
            and not await confirmed(f"{verb} {len(chosen)} dead letters?")
        ):
            click.echo("nothing was done", err=True)
            return None
        total = 0
        quarantined, refused = list[str](), list[dict[str, str]]()
        with progress_bar(verb) as bar:
            for start in range(0, len(chosen), IDS_A_CALL):
                part = chosen[start : start + IDS_A_CALL]

                def moved(looked_at: int, _: int, start: int = start) -> None:
                    bar(start + looked_at, len(chosen))

                report = await caller.call(f"dlq.{verb}", {"ids": part, "dry_run": dry_run, **options}, moved)
                total += report["count"]
                quarantined += report["quarantined"]
                refused += report["refused"]
                if dry_run:
                    for id in report["ids"]:
                        click.echo(id)
        if not dry_run and (total or not refused):
            click.echo(f"{done} {total}")
        if quarantined:
            complain(
                f"quarantined, not {done}: {_some(quarantined)}; `dlq show` says why they fail, --force takes them"
            )
        for refusal in refused:
            complain(f"{refusal['id']}: {refusal['why']}")
        return 2 if refused or (ids and quarantined) else None

    run(body)


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
