"""What the audit and search groups do with their events."""

from typing import Any

import msgspec
import pytest

from actors.consumers.audit.handler import AuditHandler
from actors.consumers.partitions import Delivered
from actors.consumers.retry import Permanent
from actors.consumers.search.handler import SearchHandler
from backends.ports.events import Record
from backends.ports.stores import AuditEntry, Document
from tests.consumers.fakes import MemoryAudit, MemoryIndex, change, event

ENTRY = AuditEntry(
    id="e1", at=1.5, subject="s", action="user.read", entity="user/1", outcome="ok", request_id="r", status=200
)


def delivered(data: object, id: str = "e1", type: str = "user.created", partition: int = 0) -> Delivered:
    made = event(id, data=data, type=type)
    return Delivered(Record("t", partition, 0, 0, None, made.data), made)


async def test_audit_entries_are_stored_as_they_were_published_and_once() -> None:
    store = MemoryAudit()
    handler = AuditHandler(store)  # type: ignore[arg-type]
    await handler.handle([delivered(ENTRY), delivered(ENTRY)])
    await handler.handle([delivered(ENTRY)])
    assert store.entries == {"e1": ENTRY}


async def test_each_partition_has_a_chain_of_its_own() -> None:
    store = MemoryAudit()
    entries = [msgspec.structs.replace(ENTRY, id=f"e{n}") for n in range(4)]
    await AuditHandler(store).handle([delivered(entry, partition=n % 2) for n, entry in enumerate(entries)])  # type: ignore[arg-type]
    assert store.chains == {"t/0": ["e0", "e2"], "t/1": ["e1", "e3"]}


@pytest.mark.parametrize("data", [None, {"id": "e1"}, {**msgspec.to_builtins(ENTRY), "status": "200"}])
async def test_what_is_no_audit_entry_never_will_be(data: object) -> None:
    with pytest.raises(Permanent, match="no audit entry"):
        await AuditHandler(MemoryAudit()).handle([delivered(data)])  # type: ignore[arg-type]


async def indexed(*changes: dict[str, Any]) -> dict[str, Document]:
    index = MemoryIndex()
    handler = SearchHandler(index)  # type: ignore[arg-type]
    await handler.handle([delivered(data) for data in changes])
    return index.documents


async def test_a_user_is_indexed_by_name_email_and_bio() -> None:
    documents = await indexed(change("u1", 2, name="Ada", email="ada@x.org", bio="Counts"))
    assert documents == {"u1": Document(type="user", id="u1", version=2, fields=("Ada", "ada@x.org", "Counts"))}


async def test_missing_and_null_fields_are_empty() -> None:
    documents = await indexed(change("u1", 1, name="Ada", bio=None))
    assert documents["u1"].fields == ("Ada", "", "")


@pytest.mark.parametrize(
    ("version", "previous", "tombstone"),
    [(3, {"version": 3}, 4), (4, {"version": 3}, 4), (3, None, 4), (9, {"name": "no version"}, 10)],
)
async def test_a_deletion_leaves_a_tombstone_above_the_deleted_version(
    version: int, previous: object, tombstone: int
) -> None:
    documents = await indexed(change("u1", 3, name="Ada"), change("u1", version, previous=previous))
    assert documents["u1"].deleted
    assert documents["u1"].version == tombstone


async def test_a_late_event_does_not_revive_a_deleted_user() -> None:
    documents = await indexed(change("u1", 4, previous={"version": 3}), change("u1", 3, name="Ada"))
    assert documents["u1"].deleted


async def test_other_kinds_are_ignored_whatever_their_value() -> None:
    configuration = {"kind": "configuration", "id": "k", "version": 1, "entity": [1, 2], "previous": "x"}
    assert await indexed(configuration) == {}


@pytest.mark.parametrize("data", [None, {"kind": "user"}, {"kind": "user", "id": "u", "version": 1, "entity": "x"}])
async def test_what_is_no_change_never_will_be(data: object) -> None:
    with pytest.raises(Permanent):
        await SearchHandler(MemoryIndex()).handle([delivered(data)])  # type: ignore[arg-type]


async def test_a_field_that_is_no_text_is_permanent() -> None:
    with pytest.raises(Permanent, match="are texts"):
        await SearchHandler(MemoryIndex()).handle([delivered(change("u1", 1, name=5))])  # type: ignore[arg-type]
