"""Change the actor runtime in one small place at a time, and see whether its tests notice.

    python -m tools.mutants [--sample N --seed S] [--files NAME ...] [--seconds S] [--fresh | --survivors]

Verdicts are kept in var/mutants.jsonl, so a run that was ended goes on where it was. One counts for as long
as the module it is about has not changed; `--survivors` tries those again that survived for no known reason,
with all tests on all of their schedules, where a first trial leaves out what costs most and kills fewest.
Exit code 1 when fewer than --least of the mutants that were tried are killed, or when one survives for which
docs/mutants.md gives no reason.
"""

import argparse
import json
import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue

from rich.console import Console
from rich.progress import Progress
from rich.syntax import Syntax

from tools.mutants.mutations import Mutant, mutants_of
from tools.mutants.trial import FIRST, ROOT, Trial, Verdict

FOLDER = "actors/runtime"
NAMES = tuple(FIRST)
DEATHS = ("killed", "timeout")
REASONS = ROOT / "docs" / "mutants.md"


def known(results: Path) -> dict[str, Verdict]:
    """The verdicts so far by the mutants' keys; the last one counts."""
    verdicts: dict[str, Verdict] = {}
    for line in results.read_text().splitlines() if results.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the line that was being written when the run was ended
        verdicts[record["key"]] = Verdict(record["outcome"], record["by"], record["seconds"])
    return verdicts


def run(given: argparse.Namespace, console: Console) -> int:
    trials = [Trial(given.test_timeout, thorough=given.survivors) for _ in range(given.jobs)]
    try:
        mutants = [found for name in given.files for found in mutants_of(file(name), trials[0].source(file(name)))]
        total = len(mutants)
        if given.sample and given.sample < total:
            mutants = random.Random(given.seed).sample(mutants, given.sample)
        verdicts = {} if given.fresh else known(given.results)
        if given.survivors:
            again = {mutant.key for mutant in unexplained(mutants)}
            verdicts = {key: of for key, of in verdicts.items() if of.outcome != "survived" or key not in again}
        untried = [mutant for mutant in mutants if mutant.key not in verdicts]
        console.print(f"{total} mutants, {len(mutants)} chosen, {len(untried)} to try")
        if untried:
            verdicts |= attempt(untried, trials, given, console)
    finally:
        for trial in trials:
            trial.close()
    return report([(mutant, verdicts[mutant.key]) for mutant in mutants if mutant.key in verdicts], given, console)


def attempt(
    mutants: Sequence[Mutant], trials: Sequence[Trial], given: argparse.Namespace, console: Console
) -> dict[str, Verdict]:
    """Try *mutants*, one a trial at a time. Raises SystemExit when the unchanged tests fail."""
    baseline = trials[0].run(None, timeout=900.0)
    if baseline.outcome != "survived":
        sys.exit(f"mutants: the tests fail on the unchanged runtime: {baseline.by or baseline.outcome}")
    for trial in trials[1:]:
        trial.calls = trials[0].calls
    timeout = 30.0 + 4 * baseline.seconds
    until = time.monotonic() + given.seconds if given.seconds else math.inf
    free: SimpleQueue[Trial] = SimpleQueue()
    for trial in trials:
        free.put(trial)

    def one(mutant: Mutant) -> Verdict | None:
        if time.monotonic() > until:
            return None
        trial = free.get()
        try:
            return trial.run(mutant, timeout)
        finally:
            free.put(trial)

    verdicts: dict[str, Verdict] = {}
    given.results.parent.mkdir(parents=True, exist_ok=True)
    with (
        given.results.open("w" if given.fresh else "a") as out,
        Progress(console=console) as progress,
        ThreadPoolExecutor(len(trials)) as pool,
    ):
        task = progress.add_task("mutants", total=len(mutants))
        pending = {pool.submit(one, mutant): mutant for mutant in mutants}
        try:
            for done in as_completed(pending):
                mutant, verdict = pending[done], done.result()
                if verdict is None:
                    continue
                verdicts[mutant.key] = verdict
                place = {"key": mutant.key, "file": mutant.file, "line": mutant.line, "operator": mutant.operator}
                print(json.dumps(place | asdict(verdict) | {"diff": mutant.diff}), file=out, flush=True)
                survived = sum(verdict.outcome == "survived" for verdict in verdicts.values())
                progress.update(task, advance=1, description=f"mutants, {survived} survived")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for trial in trials:
                trial.close()
            raise
    return verdicts


def report(tried: Sequence[tuple[Mutant, Verdict]], given: argparse.Namespace, console: Console) -> int:
    """Print the survivors that nobody has given a reason for, as diffs, and the kill rates; the exit code."""
    survivors = [mutant for mutant, verdict in tried if verdict.outcome == "survived"]
    without = unexplained(survivors)
    for mutant in without:
        console.print(f"\nsurvived: {mutant.key} {mutant.file}:{mutant.line} ({mutant.operator})", style="yellow")
        console.print(Syntax(mutant.diff, "diff", background_color="default"))
    for name in given.files:
        outcomes = Counter(verdict.outcome for mutant, verdict in tried if name_of(mutant) == name)
        if outcomes:
            dead = sum(outcomes[death] for death in DEATHS)
            console.print(
                f"{name:<12} {dead:>4} of {outcomes.total():>4} killed, {outcomes['timeout']} of them by time"
            )
    dead = sum(verdict.outcome in DEATHS for _, verdict in tried)
    rate = dead / len(tried) if tried else 0.0
    console.print(f"{'all':<12} {dead:>4} of {len(tried):>4} killed: {rate:.1%}")
    console.print(f"{len(survivors)} survived, {len(survivors) - len(without)} of them for a reason in {REASONS.name}")
    return 0 if rate >= given.least and not without else 1


def unexplained(mutants: Sequence[Mutant]) -> list[Mutant]:
    """Those for whose survival docs/mutants.md gives no reason."""
    reasons = REASONS.read_text() if REASONS.exists() else ""
    return [mutant for mutant in mutants if f"- {name_of(mutant)} {mutant.change}: " not in reasons]


def name_of(mutant: Mutant) -> str:
    return Path(mutant.file).stem


def file(name: str) -> str:
    return f"{FOLDER}/{name}.py"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", nargs="+", default=NAMES, choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="so many, chosen by --seed; 0 is all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--test-timeout", type=int, default=3, metavar="S", help="of processor time, for one test")
    parser.add_argument("--seconds", type=int, default=0, metavar="S", help="begin no trial after so many; 0: all")
    parser.add_argument("--least", type=float, default=0.9, metavar="RATE", help="the kill rate to reach")
    parser.add_argument("--results", type=Path, default=ROOT / "var" / "mutants.jsonl", metavar="FILE")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--fresh", action="store_true", help="forget the verdicts so far")
    again.add_argument("--survivors", action="store_true", help="try those again that have no reason to survive")
    given = parser.parse_args(arguments)
    if given.jobs < 1 or given.sample < 0 or given.test_timeout < 1:
        parser.error("--jobs and --test-timeout start at 1, --sample at 0")
    return given


if __name__ == "__main__":
    try:
        sys.exit(run(parse(sys.argv[1:]), Console(width=None if sys.stdout.isatty() else 120)))
    except KeyboardInterrupt:
        sys.exit(130)
