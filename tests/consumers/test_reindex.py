"""Building the search index anew from the database."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from actors.consumers.search.handler import USER, user_document
from actors.consumers.search.reindex import PAGE, reindex
from backends.embedded.database import Database
from backends.embedded.search import SearchIndex
from backends.ports.entities import Entity, StoreUnavailable
from backends.ports.stores import Document, RebuildUnderWay


def user(number: int, name: str = "Ada", version: int = 1) -> Entity:
    body = {"id": f"u{number:05}", "name": name, "email": f"u{number}@x.org", "bio": "", "version": version}
    return Entity(USER, f"u{number:05}", version, 0.0, 0.0, msgspec.json.encode(body))


class Users:
    """The database. `before_page` is called with the number of each page that is read."""

    def __init__(self, *entities: Entity) -> None:
        self.entities = {entity.id: entity for entity in entities}
        self.pages = 0

    async def before_page(self, number: int) -> None:
        await trio.lowlevel.checkpoint()

    async def scan(self, kind: str, after: str, limit: int) -> Sequence[Entity]:
        assert kind == USER
        await self.before_page(self.pages)
        self.pages += 1
        return [self.entities[id] for id in sorted(self.entities) if id > after][:limit]


def unwatched(done: int, total: int) -> None:
    pass


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[SearchIndex]:
    with Database.open(tmp_path / "weir.db") as database:
        opened = SearchIndex(database)
        await opened.open()
        yield opened
        await opened.aclose()


async def found(index: SearchIndex, q: str) -> list[str]:
    return [hit.id for hit in await index.query(q, None, 0, 1000)]


async def test_all_users_and_nobody_else_are_found_afterwards(index: SearchIndex) -> None:
    await index.apply([Document(type=USER, id="ghost", version=9, fields=("Ghost", "", ""))])
    told: list[tuple[int, int]] = []
    many = PAGE + 50
    users = Users(*(user(n) for n in range(many)))
    done = await reindex(index, users.scan, lambda done, total: told.append((done, total)))
    assert (done.documents, done.skipped) == (many, ())
    assert len(await found(index, "ada")) == many
    assert await found(index, "ghost") == []
    assert told == [(PAGE, PAGE), (many, many)]


async def test_what_happens_meanwhile_is_neither_lost_nor_overwritten(index: SearchIndex) -> None:
    users = Users(*(user(n) for n in range(2 * PAGE)))
    await index.apply([user_document(e.id, e.version, msgspec.json.decode(e.body)) for e in users.entities.values()])

    async def before_page(number: int) -> None:
        if number == 1:  # the first page is in: one of each page changes, one of each goes, one comes
            for n in (1, PAGE + 1):
                await index.apply([user_document(f"u{n:05}", 2, {"name": "Changed"})])
            for n in (2, PAGE + 2):
                await index.apply([Document(type=USER, id=f"u{n:05}", version=2, deleted=True)])
            await index.apply([user_document("a-new-one", 1, {"name": "New"})])
            assert len(await found(index, "ada")) == 2 * PAGE - 4, "the old index answers, and is up to date"

    users.before_page = before_page  # type: ignore[method-assign]
    await reindex(index, users.scan, unwatched)
    assert sorted(await found(index, "changed")) == ["u00001", f"u{PAGE + 1:05}"]
    assert await found(index, "new") == ["a-new-one"]
    assert len(await found(index, "ada")) == 2 * PAGE - 4


async def test_a_database_that_goes_away_leaves_the_old_index(index: SearchIndex) -> None:
    users = Users(*(user(n) for n in range(2 * PAGE)))
    await index.apply([Document(type=USER, id="old", version=1, fields=("Old", "", ""))])

    async def before_page(number: int) -> None:
        if number == 1:
            raise StoreUnavailable("away")

    users.before_page = before_page  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await reindex(index, users.scan, unwatched)
    assert await found(index, "old") == ["old"]
    assert await found(index, "ada") == []


async def test_one_at_a_time(index: SearchIndex) -> None:
    users = Users(*(user(n) for n in range(3)))
    second: list[Any] = []

    async def before_page(number: int) -> None:
        if number == 0:
            with pytest.raises(RebuildUnderWay):
                await reindex(index, users.scan, unwatched)
            second.append("refused")

    users.before_page = before_page  # type: ignore[method-assign]
    assert (await reindex(index, users.scan, unwatched)).documents == 3
    assert second == ["refused"]


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"name": 5}'])
async def test_a_user_that_is_no_document_is_left_out_and_named(index: SearchIndex, body: bytes) -> None:
    users = Users(user(1), Entity(USER, "u00002", 1, 0.0, 0.0, body), user(3))
    done = await reindex(index, users.scan, unwatched)
    assert (done.documents, done.skipped) == (2, ("u00002",))
    assert await found(index, "ada") == ["u00001", "u00003"]


async def test_no_users_make_an_empty_index(index: SearchIndex) -> None:
    await index.apply([Document(type=USER, id="old", version=1, fields=("Old", "", ""))])
    assert (await reindex(index, Users().scan, unwatched)).documents == 0
    assert await found(index, "old") == []
