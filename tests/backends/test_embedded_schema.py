"""Opening a database file: fresh, old, newer, and not one at all."""

import sqlite3
from pathlib import Path

import pytest

from backends.embedded.connection import connect
from backends.embedded.database import Database
from backends.embedded.errors import CannotOpen, NewerSchema, NotADatabase
from backends.embedded.schema import Migration, known_migrations, migrate

FIRST = Migration(1, "CREATE TABLE a (x);")
SECOND = Migration(2, "ALTER TABLE a ADD COLUMN y; INSERT INTO a VALUES (1, 2);")
BROKEN = Migration(3, "CREATE TABLE b (x); INSERT INTO nowhere VALUES (1);")


def version_of(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    finally:
        connection.close()


def apply(path: Path, *migrations: Migration) -> int:
    connection = connect(path)
    try:
        return migrate(connection, path, migrations)
    finally:
        connection.close()


def test_the_known_migrations_are_numbered_without_gaps() -> None:
    versions = [migration.version for migration in known_migrations()]
    assert versions == list(range(1, len(versions) + 1))


def test_a_fresh_file_gets_them_all(tmp_path: Path) -> None:
    path = tmp_path / "weir.db"
    Database.open(path).close()
    assert version_of(path) == known_migrations()[-1].version


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    with Database.open(tmp_path / "weir.db"):
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert modes == {"weir.db": 0o600, "weir.db-wal": 0o600, "weir.db-shm": 0o600}


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "weir.db"
    for _ in range(2):
        Database.open(path).close()
    assert apply(path, *known_migrations()) == 0


def test_an_older_file_gets_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "weir.db"
    assert apply(path, FIRST) == 1
    assert apply(path, FIRST, SECOND) == 1
    assert version_of(path) == 2
    connection = connect(path)
    assert connection.execute("SELECT x, y FROM a").fetchall() == [(1, 2)]
    connection.close()


def test_a_migration_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "weir.db"
    with pytest.raises(CannotOpen, match=r"weir\.db: schema version 3 .*nowhere"):
        apply(path, FIRST, SECOND, BROKEN)
    assert version_of(path) == 2
    connection = connect(path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("a",)]
    connection.close()


def test_a_newer_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "weir.db"
    Database.open(path).close()
    newer = known_migrations()[-1].version + 1
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {newer}")
    connection.close()
    with pytest.raises(NewerSchema, match=rf"weir\.db: its schema is version {newer} .* newer"):
        Database.open(path)
    assert version_of(path) == newer


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "weir.db"
    path.write_bytes(b"Dear diary, " * 1000)
    with pytest.raises(NotADatabase, match=r"weir\.db: .*; move the file away"):
        Database.open(path)
    assert path.read_bytes() == b"Dear diary, " * 1000


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weir.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url)")
    connection.close()
    with pytest.raises(NotADatabase, match="another program"):
        Database.open(path)


@pytest.mark.parametrize("name", ["missing/weir.db", "folder"])
def test_a_path_that_cannot_be_opened_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(CannotOpen, match=name):
        Database.open(tmp_path / name)
