"""kill -9 at random moments with a slow sink, a failing one and poison: nothing is lost, order holds per key, and each
record that failed is in one dead-letter topic."""

import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from tests.flow.server import GENEROUS, ROOT, Server, eventually

pytestmark = pytest.mark.process

CONFIG = """
consumers.backoff_base = "20ms"
consumers.backoff_cap = "100ms"
""" + GENEROUS + """
[[consumer]]
name = "effects"
topics = ["entity.changed"]
handler = "tests.flow.killed_handlers:Effects"
concurrency = 8
"""  # fmt: skip
KINDS = ("plain", "plain", "plain", "slow", "failing", "broken")
DLT = "entity.changed.effects.dlt"


class Rounds:
    def __init__(self, folder: Path) -> None:
        self.effects = folder / "effects.txt"
        self.server = Server(folder, CONFIG)
        self.changes: dict[str, str] = {}
        """What was acknowledged: (user, version) → the kind of change."""

    def write(self, token: str, most: int) -> None:
        with self.server.client(token) as client:
            for _ in range(most):
                kind = random.choice(KINDS)
                user = client.post("/users", json={"name": f"{kind} x", "email": "a@example.org"}).json()
                self.changes[f"{user['id']} 1"] = kind
                for version in range(2, 2 + random.randrange(3)):
                    kind = random.choice(KINDS)
                    client.patch(f"/users/{user['id']}", json={"name": f"{kind} {version}"}).raise_for_status()
                    self.changes[f"{user['id']} {version}"] = kind

    def poison(self, token: str) -> None:
        with self.server.client(token) as client:
            user = client.post("/users", json={"name": "poison", "email": "a@example.org"}).json()
            self.changes[f"{user['id']} 1"] = "poison"

    def up(self) -> None:
        """Start it, again and again while poison kills it."""
        for _ in range(12):
            try:
                self.server.start()
                time.sleep(0.3)
            except Exception:
                if self.server.process is None or self.server.process.poll() is None:
                    raise
            if self.server.process is not None and self.server.process.poll() is None:
                return
        raise AssertionError("it does not stay up")

    def done(self) -> dict[str, list[int]]:
        """The versions of each user that were done, in the order of the effects; a repetition shows."""
        found: dict[str, list[int]] = defaultdict(list)
        for line in self.effects.read_text().splitlines() if self.effects.exists() else ():
            what, _, user, version, _ = line.split()
            if what == "done":
                found[user].append(int(version))
        return found

    def dead(self) -> dict[str, set[str]]:
        """(user, version) → the topics in which it is a dead letter."""
        database = sqlite3.connect(f"file:{self.server.data / 'weir.db'}?mode=ro", uri=True)
        try:
            letters = database.execute(
                "SELECT name, value FROM record JOIN topic ON topic.id = topic_id WHERE name LIKE '%.dlt'"
            ).fetchall()
        finally:
            database.close()
        found: dict[str, set[str]] = defaultdict(set)
        for topic, value in letters:
            change = json.loads(value)
            found[f"{change['id']} {change['version']}"].add(topic)
        return found

    def check(self) -> None:
        def finished() -> bool:
            done = {f"{user} {version}" for user, versions in self.done().items() for version in versions}
            return {at for at, kind in self.changes.items() if kind in ("plain", "slow")} <= done

        eventually(finished, within=60, every=0.3)
        failed = {at for at, kind in self.changes.items() if kind in ("failing", "broken", "poison")}
        eventually(lambda: failed <= self.dead().keys(), within=30, every=1.0)
        dead = self.dead()
        assert {at: topics for at, topics in dead.items() if topics != {DLT}} == {}
        assert set(dead) & set(self.changes) == failed, "an innocent one is among the dead letters"
        for user, versions in self.done().items():
            first = list(dict.fromkeys(versions))
            assert first == sorted(first), f"{user}: {versions}"


def rounds(folder: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Rounds(folder)
    monkeypatch.setenv("WEIR_TEST_EFFECTS", str(run.effects))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run.up()
    try:
        token = run.server.token()
        for round in range(count):
            run.write(token, 12)
            if round % 5 == 2:
                run.poison(token)
            time.sleep(random.uniform(0, 0.3))
            if run.server.process is not None and run.server.process.poll() is None:
                run.server.kill9()
            run.up()
        run.check()
    finally:
        if run.server.process is not None and run.server.process.poll() is None:
            run.server.stop()


def test_ten_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds(tmp_path, 10, monkeypatch)


@pytest.mark.long
def test_two_hundred_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds(tmp_path, 200, monkeypatch)


def test_a_handler_that_cannot_be_ends_the_command_in_one_line(tmp_path: Path) -> None:
    server = Server(tmp_path, CONFIG.replace("killed_handlers:Effects", "killed_handlers:Absent"))
    for command in (["check"], []):
        run = subprocess.run(
            [sys.executable, str(ROOT / "supervisor.py"), *command, "--config", str(server.config)],
            capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60,
        )  # fmt: skip
        assert run.returncode == 2
        (line,) = run.stderr.splitlines()
        assert line == (
            "weir: consumer[0].handler = tests.flow.killed_handlers:Absent: "
            "the module tests.flow.killed_handlers has no Absent"
        )
