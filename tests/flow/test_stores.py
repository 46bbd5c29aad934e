"""The operator's commands on the audit trail, the search index and dead letters, with a server and without."""

import json
import signal
import sqlite3
import subprocess
import sys

import msgspec
import pytest

from actors.consumers.dead_letters import dead_letter
from actors.consumers.failure import Failure
from backends.embedded.append import Appender, prepare
from backends.ports.cloudevents import to_record
from backends.ports.event_log import Attempt
from backends.ports.events import AUDIT, Event, Record
from backends.ports.stores import AuditEntry
from tests.flow.server import GENEROUS, ROOT, Server, eventually, running

pytestmark = pytest.mark.process


def audited(server: Server, least: int) -> None:
    """Wait until so many rows are in the trail and whole."""

    def enough() -> bool:
        verified = server.cli("audit", "verify", "--json")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        return json.loads(verified.stdout)["rows"] >= least

    eventually(enough, every=0.2)


def tamper(server: Server, script: str) -> None:
    connection = sqlite3.connect(server.data / "weir.db")
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    connection.executescript(script)
    connection.close()


def test_the_audit_trail_is_verified_and_a_broken_row_named(tmp_path):
    with running(tmp_path) as server:
        with server.client(server.token()) as client:
            for n in range(5):
                assert client.post("/users", json={"name": f"n{n}", "email": "e@x.org", "bio": ""}).status_code == 201
        audited(server, 5)
        head = tmp_path / "head.json"
        head.write_text(server.cli("audit", "head").stdout)
        whole = server.cli("audit", "verify", "--head", str(head))
        assert (whole.returncode, whole.stderr) == (0, "")
        assert whole.stdout.startswith("whole: ")
        with server.admin() as admin:
            assert admin.post("/operations/audit.verify", json={"head": json.loads(head.read_text())}).json()["whole"]
        tamper(server, "UPDATE audit SET subject = 'mallory' WHERE (chain, sequence) = (1, 1)")
        broken = server.cli("audit", "verify")
        assert broken.returncode == 1
        assert "row 1 (" in broken.stdout
        assert "was changed" in broken.stdout
    # The same without a server; and the tail of every chain cut off, which a signed head alone shows.
    offline = server.cli("audit", "verify")
    assert (offline.returncode, offline.stdout) == (1, broken.stdout)
    tamper(server, "DELETE FROM audit; DELETE FROM audit_chain")
    assert server.cli("audit", "verify").returncode == 0
    cut = server.cli("audit", "verify", "--head", str(head))
    assert cut.returncode == 1
    assert "the whole chain is missing" in cut.stdout
    forged = server.cli("audit", "verify", "--head", "-", stdin=head.read_text().replace('"at":"2', '"at":"3'))
    assert forged.returncode == 2
    assert "its signature does not hold" in forged.stderr
    assert server.cli("audit", "verify", "--head", str(server.config)).returncode == 2


def test_the_index_is_built_anew_from_the_database(tmp_path):
    with running(tmp_path) as server, server.client(server.token()) as client:
        for n in range(3):
            client.post("/users", json={"name": f"Ada {n}", "email": "e@x.org", "bio": ""})
        eventually(lambda: len(client.get("/search", params={"q": "ada"}).json()["items"]) == 3)
        tamper(server, "DELETE FROM document; DELETE FROM document_text")
        assert client.get("/search", params={"q": "ada"}).json()["items"] == []
        done = server.cli("search", "reindex")
        assert (done.returncode, done.stdout, done.stderr) == (0, "indexed 3\n", "")
        assert len(client.get("/search", params={"q": "ada"}).json()["items"]) == 3
        with server.admin() as admin:
            assert admin.post("/operations/search.reindex", json={}).json() == {"documents": 3, "skipped": []}
    assert server.cli("search", "reindex").stdout == "indexed 3\n"


def test_a_rebuild_that_is_killed_leaves_the_old_index(tmp_path):
    server = Server(tmp_path)
    assert server.cli("search", "reindex").stdout == "indexed 0\n"
    connection = sqlite3.connect(server.data / "weir.db")
    connection.executemany(
        "INSERT INTO entity (kind, id, version, created_at, updated_at, body) VALUES ('user', ?, 1, 0, 0, ?)",
        (
            (f"u{n:06}", json.dumps({"name": f"Ada {n}", "email": "e@x.org", "bio": "word " * 50}))
            for n in range(20_000)
        ),
    )
    connection.execute("INSERT INTO document VALUES (1, 'user', 'old', 1, 0)")
    connection.execute("INSERT INTO document_text (rowid, name, email, bio) VALUES (1, 'Grace', '', '')")
    connection.commit()

    killed = subprocess.Popen(
        [sys.executable, str(ROOT / "supervisor.py"), "search", "reindex", "--config", str(server.config)]
    )
    try:
        tables = "SELECT count(*) FROM sqlite_master WHERE name = 'document_new'"
        eventually(lambda: connection.execute(tables).fetchone()[0], every=0.01)
        eventually(lambda: connection.execute("SELECT count(*) FROM document_new").fetchone()[0] > 500, every=0.01)
    finally:
        killed.kill()
        killed.wait(10)
    assert killed.returncode == -signal.SIGKILL, "in the midst"
    connection.close()
    with running(tmp_path) as again, again.client(again.token()) as client:

        def ids(q: str) -> list[str]:
            return [item["id"] for item in client.get("/search", params={"q": q, "limit": 3}).json()["items"]]

        assert (ids("grace"), ids("ada")) == (["old"], [])
        assert again.cli("search", "reindex").stdout == "indexed 20000\n"
        assert (ids("grace"), len(ids("ada"))) == ([], 3)


MANY = 10_000


def bury(server: Server, count: int) -> None:
    """Dead letters of audits, as the consumer writes them."""
    letters = []
    for n in range(count):
        entry = AuditEntry(id=f"e{n}", at=1.0, subject="s", action="a", entity="e", outcome="ok", request_id="r")
        record = to_record(Event(AUDIT, "k", "audit", entry.id, 1.0, msgspec.json.encode(entry)))
        original = Record(AUDIT, n % 4, n, 1, record.key, record.value, record.headers)
        failure = Failure("builtins.OSError", f"the disk is full ({n})")
        letters.append(
            dead_letter(original, group="audit", failure=failure, attempt=Attempt(3, 0, 1, 2, ""), service="w")
        )
    connection = sqlite3.connect(server.data / "weir.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    Appender().append(connection, [prepare(letter) for letter in letters], 1)
    connection.execute("COMMIT")
    connection.close()


def test_a_replay_of_ten_thousand_leaves_none_and_duplicates_no_effect(tmp_path):
    server = Server(tmp_path, GENEROUS)
    assert server.cli("dlq", "list").stdout == ""
    bury(server, MANY)
    reasons = server.cli("dlq", "list", "--reasons").stdout.split("\t")
    assert reasons[:4] == [str(MANY), "audit", "audit", "builtins.OSError"]
    listed = server.cli("dlq", "list", "--group", "audit", "--json").stdout.splitlines()
    assert len(listed) == MANY
    first = json.loads(listed[0])
    assert (first["replays"], first["quarantined"]) == (0, False)
    server.start()
    try:
        replayed = server.cli("dlq", "replay", "--all", "--yes")
        assert (replayed.stdout, replayed.returncode) == (f"replayed {MANY}\n", 0), replayed.stderr
        assert server.cli("dlq", "list").stdout == ""

        def stored() -> list[tuple[int, int]]:
            connection = sqlite3.connect(server.data / "weir.db")
            try:
                return connection.execute(
                    "SELECT count(*), count(DISTINCT id) FROM audit WHERE action = 'a'"
                ).fetchall()
            finally:
                connection.close()

        eventually(lambda: stored()[0][0] >= MANY, within=60)
        assert stored() == [(MANY, MANY)]
        assert server.cli("audit", "verify").returncode == 0
        assert server.cli("dlq", "list").stdout == ""
    finally:
        assert server.stop() == 0


def test_a_misspelt_group_is_told_those_that_exist(tmp_path):
    refused = Server(tmp_path).cli("dlq", "list", "--group", "serach")
    assert refused.returncode == 2
    assert refused.stderr == "weir: there is no consumer group 'serach'; there are: audit, notification, search\n"


def test_replaying_at_a_rate_dropping_and_what_is_refused(tmp_path):
    server = Server(tmp_path)
    assert server.cli("dlq", "list").returncode == 0
    bury(server, 6)
    ids = [line.split("\t")[0] for line in server.cli("dlq", "list").stdout.splitlines()]
    assert ids == [f"audit.audit.dlt/0/{n}" for n in range(6)]
    shown = json.loads(server.cli("dlq", "show", ids[0]).stdout)
    assert (shown["value"]["id"], shown["attempts"], shown["replay_count"]) == ("e0", 3, 0)
    assert server.cli("dlq", "replay", "--all", "--reason", "(3)", "--dry-run").stdout.split() == [ids[3]]
    assert server.cli("dlq", "replay", *ids[:2], "--rate", "50").stdout == "replayed 2\n"
    assert server.cli("dlq", "drop", ids[2], ids[0]).returncode == 2, "the first of them is gone"
    assert server.cli("dlq", "drop", "--all").returncode == 2, "nobody to confirm it"
    assert len(server.cli("dlq", "list").stdout.splitlines()) == 3
    assert server.cli("dlq", "drop", "--all", "--yes").stdout == "dropped 3\n"
    assert server.cli("dlq", "list").stdout == ""
    for wrong in (
        ("replay",),
        ("replay", ids[0], "--all"),
        ("replay", ids[0], "--reason", "x"),
        ("replay", "--rate", "x"),
    ):
        assert server.cli("dlq", *wrong).returncode == 2
