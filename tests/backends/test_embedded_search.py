"""The search index in its file: what a process that died within a rebuild leaves behind."""

from pathlib import Path

from backends.embedded.database import Database
from backends.embedded.search import SearchIndex
from backends.ports.stores import Document


def user(id: str, name: str) -> Document:
    return Document(type="user", id=id, version=1, fields=(name, "", ""))


async def found(index: SearchIndex, q: str) -> list[str]:
    return [hit.id for hit in await index.query(q, None, 0, 50)]


async def test_a_rebuild_whose_process_died_leaves_the_old_index_and_is_cleared_away(tmp_path: Path) -> None:
    with Database.open(tmp_path / "weir.db") as database:
        dying = SearchIndex(database)
        await dying.open()
        await dying.apply([user("ada", "Ada")])
        async with dying.rebuilding() as fresh:
            await fresh.apply([user("eve", "Eve")])
            # From here on as after a kill: somebody else opens the file, with all that is in it.
            connection = database.connect()
            index = SearchIndex(database)
            await index.open()
            tables = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE '%new%'").fetchall()
            connection.close()
            assert tables == []
            assert await found(index, "ada") == ["ada"]
            assert await found(index, "eve") == []
            assert await index.apply([user("bob", "Bob")]) == 1
            async with index.rebuilding() as again:
                await again.apply([user("eve", "Eve")])
                await again.swap()
            assert await found(index, "eve") == ["eve"]
            assert await found(index, "bob") == []
            await index.aclose()
        await dying.aclose()


async def test_a_rebuilt_index_has_the_shape_of_the_first(tmp_path: Path) -> None:
    shapes = []
    with Database.open(tmp_path / "weir.db") as database:
        index = SearchIndex(database)
        await index.open()
        for _ in range(3):
            connection = database.connect()
            rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE name LIKE 'document%' ORDER BY name")
            shapes.append([(name, sql and sql.replace('"', "").replace("'", "")) for name, sql in rows])
            connection.close()
            async with index.rebuilding() as fresh:
                await fresh.swap()
        await index.aclose()
    assert shapes[0] == shapes[1] == shapes[2]
