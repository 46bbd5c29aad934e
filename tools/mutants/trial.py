"""Try one mutant: its tests against a private copy of what they need. The checkout is only read."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import mkdtemp
from threading import Lock

import pytest

from tools.mutants.mutations import Mutant

ROOT = Path(__file__).resolve().parents[2]
TESTS = "tests/runtime"
COPIED: tuple[str, ...] = (
    "actors/__init__.py",
    "actors/runtime",
    "tests/__init__.py",
    TESTS,
    "pyproject.toml",
    "tools/__init__.py",
    "tools/mutants",
)
# Those of tests/conftest.py that the tests of the runtime need, and what bounds a trial.
PLUGINS = ("actors.runtime.testing", "pytester", "tools.mutants.limits")

# Which tests look at a module first, in a process of their own: most mutants end within a second.
FIRST = {
    "backoff": ("test_backoff",),
    "cell": ("test_exit_events", "test_asking", "test_crash_and_retry", "test_ending", "test_mutants_gaps"),
    "envelope": ("test_envelopes", "test_asking", "test_later_and_spawn", "test_crash_and_retry"),
    "hand": ("test_metrics", "test_later_and_spawn", "test_batches", "test_asking", "test_traces", "test_misuse"),
    "inbox": ("test_asking", "test_telling_and_mailboxes", "test_ask_cycles", "test_traces", "test_metrics"),
    "incarnation": ("test_start_and_stop", "test_later_and_spawn", "test_batches", "test_stop_budgets"),
    "intake": ("test_batches", "test_asking", "test_crash_and_retry", "test_later_and_spawn", "test_metrics"),
    "intensity": ("test_intensity",),
    "later": ("test_later_and_spawn", "test_crash_and_retry", "test_misuse"),
    "queue": ("test_telling_and_mailboxes",),
    "restarts": ("test_strategies", "test_exit_events"),
    "strategy": ("test_strategies",),
    "supervision": (
        "test_exit_events",
        "test_supervisors_from_outside",
        "test_strategies",
        "test_escalation",
        "test_intensity",
        "test_start_and_stop",
    ),
    "validation": ("test_validation",),
}
FEW = 60
"""Tests that are worth one process, and not one for the likely killers and one for the others."""
CALLS = "calls.json"
# Each trial is forked from a process that has imported all but what is tried.
WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload(
    ["hypothesis.stateful", "_pytest.pytester", "pytest_trio.plugin", "trio.testing", "tools.mutants.trial"]
)
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Verdict:
    """`outcome`: survived, killed (a test failed, or nothing could be imported) or timeout."""

    outcome: str
    by: str
    seconds: float


def run_pytest(arguments: Sequence[str], folder: Path, environment: dict[str, str], out: Path) -> None:
    """In a process of its own, on the copy in *folder*; its exit code is pytest's."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, str(folder))
    with out.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(pytest.main(list(arguments)))


class Trial:
    """One private copy, used for one mutant after another."""

    def __init__(self, test_s: int, *, thorough: bool) -> None:
        self._folder = Path(mkdtemp(prefix="weir-mutants-"))
        self._limits = {"MUTANT_TEST_S": str(test_s), "MUTANT_THOROUGH": str(int(thorough))}
        self._at = int(time.time()) - 10_000_000
        self.calls: dict[str, list[str]] = {}
        """By test, the functions that it calls: known after a run on the unchanged copy."""
        self._child: BaseProcess | None = None
        self._lock, self._ended = Lock(), False
        ignored = shutil.ignore_patterns("__pycache__")
        for name in COPIED:
            source, target = ROOT / name, self._folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=ignored)
            elif source.exists():
                shutil.copy(source, target)

    def source(self, file: str) -> str:
        """The copy's text: what changes in the checkout meanwhile changes nothing here."""
        return (self._folder / file).read_text()

    def run(self, mutant: Mutant | None, timeout: float) -> Verdict:
        """Run the tests on *mutant* (None: on the unchanged copy), for at most *timeout* seconds."""
        if mutant is None:
            tests = [f"{TESTS}/{name}.py" for name in self._names()]
            with_callers = {"MUTANT_TEST_S": "100"}  # to be watched takes its time
            verdict = self._tests(tests, timeout, ["tools.mutants.callers"], with_callers)
            self.calls = json.loads((self._folder / CALLS).read_text()) if verdict.outcome == "survived" else {}
            return verdict
        path = self._folder / mutant.file
        original = path.read_text()
        try:
            self._write(path, mutant.source)
            verdict = Verdict("survived", "no test calls it", 0.0)
            for tests in self._stages(mutant):
                stage = self._tests(tests, timeout)
                verdict = replace(stage, seconds=round(verdict.seconds + stage.seconds, 2))
                if verdict.outcome != "survived":
                    break
            return verdict
        finally:
            self._write(path, original)

    def close(self) -> None:
        with self._lock:
            self._ended = True
            self._kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self, path: Path, text: str) -> None:
        # Bytecode is looked up by size and whole seconds: two mutants in one second must not look alike.
        self._at += 1
        if path.exists():  # gone when `close` was faster
            path.write_text(text)
            os.utime(path, (self._at, self._at))

    def _stages(self, mutant: Mutant) -> list[list[str]]:
        """The tests that may notice *mutant*, in one process or two."""
        stem = Path(mutant.file).stem
        called = f"{stem}:{mutant.function}"
        tests = [test for test, functions in self.calls.items() if mutant.function is None or called in functions]
        if len(tests) <= FEW:
            return [tests] if tests else []
        first = [test for test in tests if test.partition("::")[0] in {f"{TESTS}/{name}.py" for name in FIRST[stem]}]
        return [stage for stage in (first, [test for test in tests if test not in first]) if stage]

    def _names(self) -> list[str]:
        return sorted(path.stem for path in (self._folder / TESTS).glob("test_*.py"))

    def _tests(
        self, tests: Sequence[str], timeout: float, plugins: Sequence[str] = (), limits: Mapping[str, str] | None = None
    ) -> Verdict:
        arguments = ["-x", "-q", "--tb=no", "--hypothesis-seed=0", "-p", "no:randomly", "-p", "no:cacheprovider"]
        arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of plugins that are imported already
        arguments += [part for plugin in (*PLUGINS, *plugins) for part in ("-p", plugin)]
        arguments += tests
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self._folder),
            "MUTANT_CALLS": CALLS,
            **self._limits,
            **(limits or {}),
        }
        started = time.monotonic()
        with self._lock:
            if self._ended:
                return Verdict("unknown", "the run was ended", 0.0)
            out = self._folder / "out.txt"
            self._child = WARM.Process(target=run_pytest, args=(arguments, self._folder, environment, out))
            self._child.start()
        self._child.join(timeout)
        self._kill()
        self._child.join()
        return self._verdict(self._child.exitcode or 0, out.read_text(), time.monotonic() - started)

    def _verdict(self, code: int, out: str, seconds: float) -> Verdict:
        seconds = round(seconds, 2)
        if self._ended:
            return Verdict("unknown", "the run was ended", seconds)
        if code == -signal.SIGKILL:
            return Verdict("timeout", "", seconds)
        if code == 0:
            return Verdict("survived", "", seconds)
        found = FAILED.search(out)
        return Verdict("killed", found[1] if found else f"exit code {code}: {out.strip()[-200:]}", seconds)

    def _kill(self) -> None:
        if self._child is not None and self._child.is_alive():
            self._child.kill()
