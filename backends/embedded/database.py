"""The embedded database file as the adapters share it: turns at writing, durability, checkpoints.

A short transaction runs on the event loop, because a thread of many short steps starves beside a busy
loop (it needs the GIL back after each). What really waits goes to a thread as one call: the fsync of the
write-ahead log, the checkpoint, a long query (`reader.py`).
"""

import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

import trio

from backends.embedded.connection import connect, engine_errors, transaction, unusable
from backends.embedded.errors import CannotOpen
from backends.embedded.schema import known_migrations, migrate
from backends.ports.entities import StoreUnavailable

T = TypeVar("T")

# From here on a checkpoint also makes the log start anew, and writers wait those few milliseconds.
RESTART_BYTES = 64 * 1024 * 1024
PAGE_BYTES = 4096
# How long a checkpoint that holds the writers waits for a long query to end.
PATIENCE_MS = 20

# fdatasync leaves out the file's times, which no recovery reads.
_fsync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class Checkpoint(NamedTuple):
    """`wal_pages` in the log before, `moved_pages` of them now also in the database, `restarted`: the
    log starts anew with the next write."""

    wal_pages: int
    moved_pages: int
    restarted: bool


class Database:
    """One file, opened once a process and given to every adapter, which opens connections of its own.

    `open` and `close` are synchronous and belong to the composition root; close the adapters first.
    """

    def __init__(self, path: Path, keeper: sqlite3.Connection, wal_fd: int, fsync: Callable[[int], None]) -> None:
        self.path = path
        # Also keeps the log file in being: the last connection to close removes it, under our descriptor.
        self._keeper = keeper
        self._wal_fd = wal_fd
        self._fsync = fsync
        self._writer = trio.Lock()
        self._syncing = trio.Lock()
        self._checkpointing = trio.Lock()
        self._fsync_thread = trio.CapacityLimiter(1)
        self._slow_thread = trio.CapacityLimiter(1)
        self._asked = 0
        self._synced = 0
        self._lost: OSError | None = None

    @classmethod
    def open(cls, path: Path, *, fsync: Callable[[int], None] = _fsync) -> Self:
        """Open *path*, or create it for our eyes only (mode 0600), and bring its schema up to date.

        Raises an `UnusableDatabase`.
        """
        _create(path)
        keeper = connect(path)
        try:
            migrate(keeper, path, known_migrations())
            wal_fd = _open_log(path, keeper)
            keeper.execute(f"PRAGMA busy_timeout = {PATIENCE_MS}")
        except sqlite3.Error as error:
            keeper.close()
            raise unusable(path, error) from error
        except BaseException:
            keeper.close()
            raise
        return cls(path, keeper, wal_fd, fsync)

    def close(self) -> None:
        os.close(self._wal_fd)
        self._keeper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        """A new connection. Raises an `UnusableDatabase`."""
        return connect(self.path, read_only=read_only)

    async def write(self, connection: sqlite3.Connection, work: Callable[[], T]) -> T:
        """Run *work* in a transaction of *connection*, on the loop; committed when this returns, not yet durable.

        Raises `StoreUnavailable`, or what *work* raised (rolled back). Cancelled only before it begins.
        """
        async with self._writer:
            with transaction(connection):
                return work()

    async def write_in_thread(self, connection: sqlite3.Connection, work: Callable[[], T]) -> T:
        """As `write`, for long work of few statements: other writers wait, the loop does not. Not cancelled."""

        def run() -> T:
            with transaction(connection):
                return work()

        async with self._writer:
            return await trio.to_thread.run_sync(run, limiter=self._slow_thread)

    async def sync(self) -> None:
        """Return when all that was committed before the call survives a power failure.

        Callers that come while an fsync runs share the next one. Raises `StoreUnavailable` when the disk
        refused, and from then on for ever: the kernel forgets pages it could not write, so a later
        success would prove nothing (PostgreSQL's "fsyncgate").
        """
        self._asked += 1
        mine = self._asked
        async with self._syncing:
            if self._lost is not None:
                raise StoreUnavailable(f"{self.path}: an fsync failed ({self._lost}); restart Weir") from self._lost
            if self._synced >= mine:
                return
            covers = self._asked
            try:
                await trio.to_thread.run_sync(self._fsync, self._wal_fd, limiter=self._fsync_thread)
            except OSError as error:
                self._lost = error
                raise StoreUnavailable(f"{self.path}: fsync failed: {error}") from error
            self._synced = covers

    async def checkpoint(self) -> Checkpoint:
        """Move the log's pages into the database, in a thread; call it about once a second.

        While the log is short, beside the writers. Under steady writing it would then never be moved
        whole and would grow for ever; so a long one is first moved as far as that goes, and then, with
        the writers held for the little that is left, made to start anew. A long query may prevent that
        once; `restarted` says so. Raises `StoreUnavailable`.
        """
        async with self._checkpointing:
            done = await self._run_checkpoint("PASSIVE")
            if done.wal_pages * PAGE_BYTES < RESTART_BYTES:
                return done
            async with self._writer:
                return await self._run_checkpoint("RESTART")

    async def _run_checkpoint(self, mode: str) -> Checkpoint:
        return await trio.to_thread.run_sync(partial(_checkpoint, self._keeper, mode), limiter=self._slow_thread)


def _checkpoint(connection: sqlite3.Connection, mode: str) -> Checkpoint:
    with engine_errors():
        busy, wal_pages, moved = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        restarted = mode == "RESTART" and not busy
        if restarted:
            # The first write to the new log waits for the disk (an fsync of its header, and the file is cut
            # back): tens of milliseconds under load, which are better spent here than on the loop.
            _write_nothing(connection)
    return Checkpoint(wal_pages, moved, restarted)


def _write_nothing(connection: sqlite3.Connection) -> None:
    """A write that changes nothing: the header's schema version as it is."""
    connection.execute(f"PRAGMA user_version = {connection.execute('PRAGMA user_version').fetchone()[0]}")


def _create(path: Path) -> None:
    # The log files get the mode of the database. An existing file is left as it is, and above all not
    # opened: closing a descriptor of it would drop the locks that SQLite holds on it in this process.
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise CannotOpen(path, error.strerror or str(error)) from error


def _open_log(path: Path, keeper: sqlite3.Connection) -> int:
    """A descriptor of the write-ahead log, for fsync alone. SQLite puts no lock on this file, so closing
    the descriptor drops none (as closing one of the database itself would)."""
    _write_nothing(keeper)  # makes the file, and shows now that the database can be written
    try:
        return os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CannotOpen(path, f"its write-ahead log cannot be opened ({error.strerror})") from error
