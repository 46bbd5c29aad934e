"""The schema's versions: numbered SQL files, each applied once, in order, in a transaction of its own.

`PRAGMA user_version` holds the number of the last one applied. A database newer than this code is refused:
its meaning is unknown here.
"""

import sqlite3
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from backends.embedded.errors import CannotOpen, EngineTooOld, NewerSchema, NotADatabase

# UPDATE … RETURNING (3.35) and row values in the upserts.
OLDEST_ENGINE = (3, 35, 0)


class Migration(NamedTuple):
    version: int
    sql: str


def known_migrations() -> list[Migration]:
    """The SQL files beside this module (`migrations/0001_initial.sql`, …), by version."""
    folder = resources.files("backends.embedded") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [Migration(int(file.name.partition("_")[0]), file.read_text(encoding="utf-8")) for file in files]


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> int:
    """Bring the database to the last of *migrations*; returns how many were applied.

    Raises an `UnusableDatabase`. One that fails is rolled back whole; those before it stay applied.
    """
    if sqlite3.sqlite_version_info < OLDEST_ENGINE:
        raise EngineTooOld(path, f"SQLite {sqlite3.sqlite_version} is too old")
    current = _version(connection)
    latest = migrations[-1].version
    if current > latest:
        raise NewerSchema(path, current, latest)
    if current == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise NotADatabase(path, "it is a database of another program")
    pending = [migration for migration in migrations if migration.version > current]
    for migration in pending:
        _apply(connection, path, migration)
    return len(pending)


def _apply(connection: sqlite3.Connection, path: Path, migration: Migration) -> None:
    # user_version is part of the database header, so it is rolled back with the rest.
    script = f"BEGIN IMMEDIATE;\n{migration.sql}\nPRAGMA user_version = {migration.version};\nCOMMIT;"
    try:
        connection.executescript(script)
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if "no such module: fts5" in str(error):
            raise EngineTooOld(path, f"SQLite {sqlite3.sqlite_version} has no FTS5") from error
        raise CannotOpen(path, f"schema version {migration.version} could not be applied ({error})") from error


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version
