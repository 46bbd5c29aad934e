"""The audit trail in a file that others can write to: it refuses what it can, and shows what it cannot."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from backends.embedded.audit import AuditStore
from backends.embedded.connection import connect
from backends.embedded.database import Database
from backends.embedded.schema import known_migrations, migrate
from backends.ports.audit_chain import LEGACY_CHAIN, ORIGIN, chain_hash, to_fields
from backends.ports.stores import AuditEntry, AuditFilter, AuditHead

TRIGGERS = ("audit_keeps_its_rows", "audit_keeps_its_values", "audit_keeps_its_chains", "audit_goes_forward")


def entry(number: int) -> AuditEntry:
    return AuditEntry(
        id=f"e{number}", at=float(number), subject="s", action="a", entity="e", outcome="ok", request_id="r"
    )


def sign(head: AuditHead) -> str:
    return f"signed {head}"


def trusted(head: AuditHead, signature: str) -> bool:
    return signature == sign(head)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "weir.db") as opened:
        yield opened


@pytest.fixture
async def trail(database: Database) -> AsyncIterator[AuditStore]:
    """Two chains: `t/0` with rows 1 to 300 (e1 …), `t/1` with rows 1 to 10 (e1001 …)."""
    store = AuditStore(database)
    await store.open()
    await store.append("t/0", [entry(n) for n in range(1, 301)])
    await store.append("t/1", [entry(n) for n in range(1001, 1011)])
    yield store
    await store.aclose()


def behind_its_back(database: Database, script: str) -> None:
    connection = database.connect()
    for trigger in TRIGGERS:
        connection.execute(f"DROP TRIGGER {trigger}")
    connection.executescript(script)
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit WHERE sequence = 2",
        "DELETE FROM audit",
        "UPDATE audit SET subject = 'x'",
        "DELETE FROM audit_chain",
        "UPDATE audit_chain SET sequence = 2",
        "UPDATE audit_chain SET hash = zeroblob(32)",
        "UPDATE audit_chain SET name = 'other'",
        "UPDATE audit_chain SET dropped = 5",
        "UPDATE audit_chain SET dropped = 500, signature = 'x'",
        "UPDATE audit_chain SET signature = 'x'",
        "INSERT INTO audit SELECT chain, sequence, 'new', at, subject, action, entity, outcome, request_id, status, "
        "client, hash FROM audit WHERE sequence = 3",
    ],
)
async def test_the_database_itself_refuses_changes(database: Database, trail: AuditStore, statement: str) -> None:
    connection = database.connect()
    with pytest.raises(sqlite3.IntegrityError, match=r"append-only|CHECK|UNIQUE"):
        connection.execute(statement)
    connection.close()


IN_0 = "chain = (SELECT chain FROM audit_chain WHERE name = 't/0')"

TAMPERINGS = {
    "a row changed": (
        f"UPDATE audit SET subject = 'somebody else' WHERE sequence = 290 AND {IN_0}",
        [("t/0", 290, "row 290 (e290) was changed")],
    ),
    "a time moved by a nanosecond": (
        f"UPDATE audit SET at = at + 1e-9 WHERE sequence = 1 AND {IN_0}",
        [("t/0", 1, "row 1 (e1) was changed")],
    ),
    "a row removed": (
        f"DELETE FROM audit WHERE sequence = 260 AND {IN_0}",
        [("t/0", 260, "row 260 is missing")],
    ),
    "two rows swapped": (
        f"UPDATE audit SET sequence = -sequence WHERE sequence IN (7, 8) AND {IN_0};"
        f"UPDATE audit SET sequence = 15 + sequence WHERE sequence < 0 AND {IN_0}",
        [("t/0", 7, "row 7 (e8) was changed")],
    ),
    "the tail cut": (
        f"DELETE FROM audit WHERE sequence > 298 AND {IN_0}",
        [("t/0", 299, "row 299 is missing: the chain ends before row 300")],
    ),
    "the head changed": (
        "UPDATE audit_chain SET hash = zeroblob(32) WHERE name = 't/0'",
        [("t/0", 300, "row 300 is not the one that was written last")],
    ),
    "a row added behind the head": (
        f"INSERT INTO audit SELECT chain, 301, 'new', at, subject, action, entity, outcome, request_id, status, "
        f"client, hash FROM audit WHERE sequence = 300 AND {IN_0}",
        [("t/0", 301, "row 301 was added behind the chain's head")],
    ),
    "a prefix taken away under a forged checkpoint": (
        f"UPDATE audit_chain SET dropped = 5, signature = 'forged', "
        f"dropped_hash = (SELECT hash FROM audit WHERE sequence = 5 AND {IN_0}) WHERE name = 't/0';"
        f"DELETE FROM audit WHERE sequence <= 5 AND {IN_0}",
        [("t/0", 1, "rows 1 to 5 are missing, and their checkpoint is not signed with our key")],
    ),
    "two chains exchanged": (
        "UPDATE audit_chain SET name = 'x' WHERE name = 't/0'; UPDATE audit_chain SET name = 't/0' WHERE name = 't/1';"
        "UPDATE audit_chain SET name = 't/1' WHERE name = 'x'",
        [("t/0", 1, "row 1 (e1001) was changed"), ("t/1", 1, "row 1 (e1) was changed")],
    ),
    "a row in each chain": (
        "UPDATE audit SET outcome = 'failed' WHERE sequence IN (3, 4)",
        [("t/0", 3, "row 3 (e3) was changed"), ("t/1", 3, "row 3 (e1003) was changed")],
    ),
}


@pytest.mark.parametrize(("script", "broken"), TAMPERINGS.values(), ids=TAMPERINGS.keys())
async def test_tampering_shows_by_the_first_broken_row_of_each_chain(
    database: Database, trail: AuditStore, script: str, broken: list[tuple[str, int, str]]
) -> None:
    assert (await trail.verify(trusted=trusted)).broken == ()
    behind_its_back(database, script)
    found = (await trail.verify(trusted=trusted)).broken
    assert [msgspec.structs.astuple(broke) for broke in found] == broken


# Who can write the file can also move the heads back: nothing inside the trail shows that.
CUT = (
    f"DELETE FROM audit WHERE sequence > 298 AND {IN_0};"
    f"UPDATE audit_chain SET sequence = 298, hash = (SELECT hash FROM audit WHERE sequence = 298 AND {IN_0}) "
    "WHERE name = 't/0'"
)
GONE = f"DELETE FROM audit WHERE {IN_0}; DELETE FROM audit_chain WHERE name = 't/0'"


async def test_a_cut_tail_shows_against_a_head_from_elsewhere_alone(database: Database, trail: AuditStore) -> None:
    heads = await trail.heads()
    behind_its_back(database, CUT)
    assert (await trail.verify(trusted=trusted)).broken == ()
    (broken,) = (await trail.verify(trusted=trusted, expected=heads)).broken
    assert msgspec.structs.astuple(broken) == ("t/0", 299, "row 299 is missing: the signed head is at row 300")


async def test_a_chain_that_is_gone_shows_against_a_head_from_elsewhere(database: Database, trail: AuditStore) -> None:
    heads = await trail.heads()
    behind_its_back(database, GONE)
    (broken,) = (await trail.verify(trusted=trusted, expected=heads)).broken
    assert msgspec.structs.astuple(broken) == ("t/0", 1, "the whole chain is missing, up to row 300")


async def test_a_rewritten_trail_shows_against_a_head_from_elsewhere(database: Database, trail: AuditStore) -> None:
    heads = await trail.heads()
    behind_its_back(database, GONE)
    await trail.append("t/0", [entry(n) for n in range(2, 310)])
    assert (await trail.verify(trusted=trusted)).broken == ()
    (broken,) = (await trail.verify(trusted=trusted, expected=heads)).broken
    assert (broken.chain, broken.sequence) == ("t/0", 300)
    assert "rewritten" in broken.what


async def test_the_trail_of_the_first_version_stays_verifiable_and_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "weir.db"
    first = known_migrations()[0]
    connection = connect(path)
    migrate(connection, path, [first])
    digest = ORIGIN
    for n in range(1, 11):
        fields = to_fields(entry(n))
        digest = chain_hash(LEGACY_CHAIN, n, digest, fields)
        connection.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (n, *fields, digest))
    connection.execute("UPDATE audit_head SET seq = 10, hash = ?", (digest,))
    connection.close()

    with Database.open(path) as database:
        store = AuditStore(database)
        await store.open()
        assert await store.append("audit/0", [entry(10), entry(11)]) == 1, "e10 is known from before"
        verdict = await store.verify(trusted=trusted)
        assert (verdict.rows, verdict.broken) == (11, ())
        assert verdict.heads[0] == AuditHead(LEGACY_CHAIN, 10, digest.hex())
        assert [found.id for found in await store.query(AuditFilter(), None, 3)] == ["e11", "e10", "e9"]
        behind_its_back(database, "UPDATE audit SET subject = 'x' WHERE sequence = 4 AND chain = 1")
        (broken,) = (await store.verify(trusted=trusted)).broken
        assert (broken.chain, broken.sequence) == (LEGACY_CHAIN, 4)
        await store.aclose()


async def test_a_trail_that_was_empty_leaves_no_chain_behind(tmp_path: Path) -> None:
    path = tmp_path / "weir.db"
    connection = connect(path)
    migrate(connection, path, known_migrations()[:1])
    connection.close()
    with Database.open(path) as database:
        store = AuditStore(database)
        await store.open()
        assert await store.heads() == []
        await store.aclose()
