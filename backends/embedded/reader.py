"""A connection for queries that may take long, in a worker thread of its own, one at a time."""

import sqlite3
from collections.abc import Callable
from typing import TypeVar

import trio

from backends.embedded.connection import engine_errors
from backends.embedded.database import Database

T = TypeVar("T")

# Virtual machine steps between two looks at whether the caller was cancelled: about a millisecond.
STEPS_BETWEEN_LOOKS = 50_000


class Reader:
    """Runs queries beside the loop. The connection opens with the first query.

    Give it queries of *one row* (aggregate with json_group_array): a thread needs the GIL back after each
    row, and beside a busy loop every one of those waits up to the switch interval.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = trio.CapacityLimiter(1)
        self._connection: sqlite3.Connection | None = None

    async def run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Raises `StoreUnavailable`. Cancelling interrupts the query within a few milliseconds."""
        return await trio.to_thread.run_sync(self._run, query, limiter=self._thread)

    def _run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            self._connection = self._database.connect(read_only=True)
            self._connection.set_progress_handler(_cancelled, STEPS_BETWEEN_LOOKS)
        with engine_errors():
            try:
                return query(self._connection)
            except sqlite3.OperationalError:
                trio.from_thread.check_cancelled()  # it was we who interrupted it
                raise

    async def aclose(self) -> None:
        """Waits for the query under way."""
        async with self._thread:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def _cancelled() -> bool:
    """True interrupts the query. The exception cannot pass through SQLite; `_run` raises it anew."""
    try:
        trio.from_thread.check_cancelled()
    except trio.Cancelled:
        return True
    return False
