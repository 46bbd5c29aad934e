"""The schema's versions: numbered SQL files, applied in one transaction under a lock that instances share.

`schema_version` holds the number of the last one applied. A database newer than this code is refused: its meaning
is unknown here.
"""

from importlib import resources
from typing import Any, NamedTuple

from backends.postgres.errors import NewerSchema

# Any number, as long as nobody else locks it in our database: "weir" in ASCII, and which lock.
MIGRATION_LOCK = 0x77656972_0001


class Migration(NamedTuple):
    version: int
    sql: str


def known_migrations() -> list[Migration]:
    """The SQL files beside this module (`migrations/0001_initial.sql`, …), by version."""
    folder = resources.files("backends.postgres") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [Migration(int(file.name.partition("_")[0]), file.read_text(encoding="utf-8")) for file in files]


async def migrate(connection: Any, place: str, schema: str) -> int:
    """asyncio: bring *schema* to the last known version; returns how many files were applied.

    Instances that start at once take turns, and the later ones find nothing to do. Raises `NewerSchema`. One file
    that fails, or a cancellation with the connection closed after it, leaves the schema as it was.
    """
    migrations = known_migrations()
    # Looked at without the lock first: the usual start changes nothing and waits for nobody.
    if await _version(connection, place, schema, migrations) == migrations[-1].version:
        return 0
    await connection.execute("BEGIN")
    await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK)
    current = await _version(connection, place, schema, migrations)
    if current == 0:
        await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        await connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version integer NOT NULL)")
        await connection.execute("INSERT INTO schema_version VALUES (0)")
    pending = [migration for migration in migrations if migration.version > current]
    for migration in pending:
        await connection.execute(migration.sql)
        await connection.execute("UPDATE schema_version SET version = $1", migration.version)
    await connection.execute("COMMIT")
    return len(pending)


async def _version(connection: Any, place: str, schema: str, migrations: list[Migration]) -> int:
    """0: there is no schema of ours."""
    if await connection.fetchval("SELECT to_regclass($1)", f'"{schema}".schema_version') is None:
        return 0
    found: int = await connection.fetchval(f'SELECT version FROM "{schema}".schema_version')  # noqa: S608
    if found > migrations[-1].version:
        raise NewerSchema(place, found, migrations[-1].version)
    return found
