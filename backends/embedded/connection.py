"""A connection to the database file, and a transaction on it. Synchronous; knows nothing of tasks."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backends.embedded.errors import CannotOpen, NotADatabase, UnusableDatabase
from backends.ports.entities import StoreUnavailable

# Writers take turns within the process (database.py) and the data directory is locked, so the file is
# never busy for long; this covers the command line looking at it.
BUSY_TIMEOUT_MS = 250
CACHE_KIB = 8 * 1024
# Another connection's commit empties this one's page cache; mapped pages make the refill cheap.
MMAP_BYTES = 256 * 1024 * 1024
# What the log file is cut back to when it starts anew. Not less: a log written over in place needs no
# change of the file's size, which makes its fsync several times cheaper.
WAL_KEPT_BYTES = 64 * 1024 * 1024

_PRAGMAS = (
    "PRAGMA synchronous = NORMAL",  # commits do not wait for the disk; who must, calls Database.sync
    "PRAGMA wal_autocheckpoint = 0",  # checkpoints run in a thread, never inside a commit
    f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}",
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
    f"PRAGMA cache_size = -{CACHE_KIB}",
    f"PRAGMA mmap_size = {MMAP_BYTES}",
)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open *path* (created if absent) in WAL mode, in autocommit: transactions are explicit.

    The connection may be used from any thread, by one at a time. Raises an `UnusableDatabase`.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    except sqlite3.Error as error:
        raise unusable(path, error) from error
    try:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise CannotOpen(path, f"its file system does not carry a write-ahead log (mode {mode})")
        for pragma in _PRAGMAS:
            connection.execute(pragma).fetchall()
        if read_only:
            connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        connection.close()
        raise unusable(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """BEGIN IMMEDIATE … COMMIT; any exception rolls back. There must be no await inside.

    Raises `StoreUnavailable` when the engine fails (disk full, I/O error, busy).
    """
    with engine_errors():
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            # A full disk or an I/O error may have ended the transaction already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


@contextmanager
def engine_errors() -> Iterator[None]:
    """Turn the engine's failures into `StoreUnavailable`; a statement's own errors pass through."""
    try:
        yield
    except sqlite3.Error as error:
        if not is_engine_error(error):
            raise
        raise StoreUnavailable(f"the embedded database failed: {error}") from error


def is_engine_error(error: Exception) -> bool:
    """Whether the whole transaction is lost, and not one statement (a bad value, a broken constraint)."""
    return isinstance(error, sqlite3.OperationalError | sqlite3.InternalError) or type(error) is sqlite3.DatabaseError


def unusable(path: Path, error: sqlite3.Error) -> UnusableDatabase:
    """Why *error*, met on opening, makes the file unusable."""
    if getattr(error, "sqlite_errorname", "") in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
        return NotADatabase(path, f"it is not a database ({error})")
    return CannotOpen(path, str(error))
