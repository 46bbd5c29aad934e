"""Signed heads and verification, as an operator uses them, on the embedded trail."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.embedded.audit import AuditStore
from backends.embedded.database import Database
from backends.ports.audit_signing import AuditKey, SignedHeads
from backends.ports.stores import AuditEntry, AuditHead
from gateway.admin.audit_operations import AuditOperations
from gateway.admin.operations import OperationError, Operations

KEY = AuditKey("a secret")
HEADS = st.lists(
    st.builds(AuditHead, st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 2**53 - 1), st.text("0f")),
    max_size=4,
)


def entries(first: int, last: int) -> list[AuditEntry]:
    return [
        AuditEntry(id=f"e{n}", at=float(n), subject="s", action="a", entity="e", outcome="ok", request_id="r")
        for n in range(first, last + 1)
    ]


class Desk:
    def __init__(self, database: Database, store: AuditStore) -> None:
        self.store = store
        self._database = database
        self._operations = Operations(AuditOperations(store, lambda: KEY, lambda: 1.5).by_name())

    async def call(self, name: str, **arguments: Any) -> Any:
        return msgspec.json.decode(msgspec.json.encode(await self._operations.call(f"audit.{name}", arguments)))

    def tamper(self, script: str) -> None:
        connection = sqlite3.connect(self._database.path)
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.executescript(script)
        connection.close()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    with Database.open(tmp_path / "weir.db") as database:
        store = AuditStore(database)
        await store.open()
        yield Desk(database, store)
        await store.aclose()


async def test_a_whole_trail_is_said_to_be_whole(desk: Desk) -> None:
    await desk.store.append("audit/0", entries(1, 5))
    verdict = await desk.call("verify")
    assert (verdict["whole"], verdict["rows"], verdict["broken"]) == (True, 5, [])
    assert [head["chain"] for head in verdict["heads"]] == ["audit/0"]


async def test_a_broken_one_names_the_row(desk: Desk) -> None:
    await desk.store.append("audit/0", entries(1, 5))
    desk.tamper("UPDATE audit SET subject = 'mallory' WHERE sequence = 3")
    verdict = await desk.call("verify")
    assert verdict["whole"] is False
    assert verdict["broken"] == [{"chain": "audit/0", "sequence": 3, "what": "row 3 (e3) was changed"}]


async def test_a_cut_tail_shows_against_a_signed_head_alone(desk: Desk) -> None:
    await desk.store.append("audit/0", entries(1, 5))
    head = await desk.call("head")
    assert head["at"] == "1970-01-01T00:00:01.500Z"
    await desk.store.append("audit/0", entries(6, 9))
    assert (await desk.call("verify", head=head))["whole"] is True
    desk.tamper(
        "DELETE FROM audit WHERE sequence > 3;"
        "UPDATE audit_chain SET sequence = 3, hash = (SELECT hash FROM audit WHERE sequence = 3)"
    )
    assert (await desk.call("verify"))["whole"] is True
    (broken,) = (await desk.call("verify", head=head))["broken"]
    assert (broken["sequence"], broken["what"]) == (4, "row 4 is missing: the signed head is at row 5")


async def test_what_retention_dropped_is_covered_by_its_checkpoint(desk: Desk) -> None:
    await desk.store.append("audit/0", entries(1, 9))
    old = await desk.call("head")
    await desk.store.append("audit/0", entries(10, 20))
    assert await desk.store.drop_prefix(15, 100, KEY.sign) == 14
    for head in (None, old, await desk.call("head")):
        verdict = await desk.call("verify", head=head)
        assert (verdict["whole"], verdict["rows"]) == (True, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"at": "2030-01-01T00:00:00.000Z"}, "its signature does not hold"),
        ({"heads": []}, "its signature does not hold"),
        ({"signature": "é"}, "its signature does not hold"),
        ({"key": "0123456789abcdef"}, "it was signed with key '0123456789abcdef', and ours is"),
        ({"format": "another"}, "its format is 'another'"),
        ({"heads": [{"chain": "x"}]}, "the signed head is none: .*sequence"),
        ({"more": 1}, "the signed head is none"),
    ],
)
async def test_a_head_that_was_not_signed_so_is_not_trusted(desk: Desk, change: dict[str, Any], message: str) -> None:
    await desk.store.append("audit/0", entries(1, 5))
    head = await desk.call("head")
    with pytest.raises(OperationError, match=message):
        await desk.call("verify", head={**head, **change})


@given(HEADS, HEADS, st.text(max_size=5))
def test_a_signature_holds_for_what_was_signed_with_this_key_and_for_nothing_else(
    heads: list[AuditHead], others: list[AuditHead], secret: str
) -> None:
    signed = KEY.sign_heads("now", heads)
    read = msgspec.json.decode(msgspec.json.encode(signed), type=SignedHeads)
    assert KEY.heads_of(read) == tuple(heads)
    if others != heads:
        with pytest.raises(ValueError, match="does not hold"):
            KEY.heads_of(msgspec.structs.replace(signed, heads=tuple(others)))
    with pytest.raises(ValueError, match="it was signed with key"):
        AuditKey(secret).heads_of(signed)


@given(HEADS.filter(lambda heads: len(heads) == 2 and heads[0] != heads[1]))
def test_a_checkpoints_signature_is_of_its_head_and_of_its_key(heads: list[AuditHead]) -> None:
    signature = KEY.sign(heads[0])
    assert KEY.trusted(heads[0], signature)
    assert not KEY.trusted(heads[1], signature)
    assert not AuditKey("another").trusted(heads[0], signature)
    assert not KEY.trusted(heads[0], KEY.sign_heads("now", heads[:1]).signature)
