"""The durable event log on SQLite: topics, partitions, groups' progress."""

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import trio

from backends.embedded.append import Appender, TopicRow, create_topic, headers_of, prepare
from backends.embedded.connection import engine_errors
from backends.embedded.database import Database
from backends.embedded.fair_fetch import fetch_fairly
from backends.embedded.retention import purge
from backends.ports import event_log as port
from backends.ports.event_log import NO_METADATA, Attempt, Topic
from backends.ports.events import NewRecord, Offsets, Partition, Record
from backends.ports.groups import Commit

_TOPICS = "SELECT name, partitions, retention_s FROM topic ORDER BY name"
_KEEP = "UPDATE topic SET retention_s = ? WHERE id = ?"
_RECORDS = (
    "SELECT off, timestamp_ms, key, value, headers FROM record WHERE topic_id = ? AND p = ? AND off >= ? "
    "ORDER BY off LIMIT ?"
)
_RECORD = "SELECT off, timestamp_ms, key, value, headers FROM record WHERE topic_id = ? AND p = ? AND off = ?"
_ENDS = "SELECT p, next_offset FROM part WHERE topic_id = ?"
_STARTS = "SELECT p, log_start FROM part WHERE topic_id = ?"
_COMMITTED = "SELECT p, next_offset FROM committed WHERE grp = ? AND topic_id = ?"
_PROGRESS = "SELECT p, next_offset, metadata FROM committed WHERE grp = ? AND topic_id = ?"
_COMMIT = (
    "INSERT INTO committed (grp, topic_id, p, next_offset, metadata) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (grp, topic_id, p) DO UPDATE SET next_offset = excluded.next_offset, metadata = excluded.metadata"
)
_FORGET = "DELETE FROM attempt WHERE grp = ? AND topic_id = ? AND p = ? AND off < ?"
_ATTEMPTS = (
    "SELECT off, attempts, due_at, first_at, last_at, error FROM attempt WHERE grp = ? AND topic_id = ? AND p = ?"
)
_SAVE_ATTEMPT = (
    "INSERT OR REPLACE INTO attempt (grp, topic_id, p, off, attempts, due_at, first_at, last_at, error) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_DROP = "DELETE FROM record WHERE topic_id = ? AND p = ? AND off = ?"
_GROUPS = "SELECT DISTINCT grp, name FROM committed JOIN topic ON topic.id = committed.topic_id ORDER BY grp, name"


class EventLog(port.EventLog):
    """Everything runs on the loop: each call is a few statements.

    Args:
        now: Unix seconds, for the time of records.
        keep_unread: whether `purge` keeps, beyond their topic's retention, records that a group which
            ever committed to the topic has not read.
    """

    def __init__(self, database: Database, *, now: Callable[[], float] = time.time, keep_unread: bool = True) -> None:
        self._database = database
        self._now = now
        self._keep_unread = keep_unread
        self._appender = Appender()
        self._open_connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        await trio.lowlevel.checkpoint()
        self._open_connection = self._database.connect()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._open_connection is not None:
            self._open_connection.close()
            self._open_connection = None

    async def ensure_topics(self, topics: Sequence[Topic]) -> None:
        def ensure() -> None:
            for topic in topics:
                known = self._appender.find(self._connection, topic.name)
                if known is None:
                    create_topic(self._connection, topic.name, topic.partitions, topic.retention_s)
                else:
                    self._connection.execute(_KEEP, (topic.retention_s, known.id))

        await self._database.write(self._connection, ensure)

    async def topics(self) -> list[Topic]:
        return [Topic(*row) for row in await self._rows(_TOPICS)]

    async def append(self, records: Sequence[NewRecord], *, durable: bool) -> list[tuple[int, int]]:
        prepared = [prepare(record) for record in records]
        timestamp_ms = int(self._now() * 1000)
        places = await self._database.write(
            self._connection, partial(self._appender.append, self._connection, prepared, timestamp_ms)
        )
        if durable:
            await self._database.sync()
        return places

    async def fetch(self, positions: Offsets, limit: int) -> list[Record]:
        await trio.lowlevel.checkpoint()
        with engine_errors():
            return fetch_fairly(positions, limit, self._take)

    async def end_offsets(self, topic: str) -> dict[Partition, int]:
        return await self._by_partition(topic, _ENDS)

    async def start_offsets(self, topic: str) -> dict[Partition, int]:
        return await self._by_partition(topic, _STARTS)

    async def committed(self, group: str, topic: str) -> dict[Partition, int]:
        return await self._by_partition(topic, _COMMITTED, group)

    async def progress(self, group: str, topic: str) -> dict[Partition, Commit]:
        found = self._find(topic)
        if found is None:
            await trio.lowlevel.checkpoint()
            return {}
        return {(topic, p): Commit(*rest) for p, *rest in await self._rows(_PROGRESS, group, found.id)}

    async def commit(self, group: str, offsets: Offsets, metadata: Mapping[Partition, str] = NO_METADATA) -> None:
        def store() -> None:
            rows = [(group, *self._place(partition), offset) for partition, offset in offsets.items()]
            texts = [metadata.get(partition, "") for partition in offsets]
            self._connection.executemany(_COMMIT, [(*row, text) for row, text in zip(rows, texts, strict=True)])
            self._connection.executemany(_FORGET, rows)

        await self._database.write(self._connection, store)

    async def attempts(self, group: str, partition: Partition) -> dict[int, Attempt]:
        topic = self._find(partition[0])
        if topic is None:
            await trio.lowlevel.checkpoint()
            return {}
        rows = await self._rows(_ATTEMPTS, group, topic.id, partition[1])
        return {offset: Attempt(*rest) for offset, *rest in rows}

    async def save_attempt(self, group: str, partition: Partition, offset: int, attempt: Attempt) -> None:
        a = attempt
        row = (group, *self._place(partition), offset, a.attempts, a.due_at, a.first_at, a.last_at, a.error)
        await self._database.write(self._connection, partial(self._connection.execute, _SAVE_ATTEMPT, row))

    async def read(self, partition: Partition, offset: int) -> Record | None:
        topic = self._find(partition[0])
        if topic is None:
            await trio.lowlevel.checkpoint()
            return None
        rows = await self._rows(_RECORD, topic.id, partition[1], offset)
        return _record(partition, rows[0]) if rows else None

    async def drop(self, partition: Partition, offsets: Sequence[int]) -> int:
        """Durable when it returns: an operator who dropped a dead letter must not meet it again."""
        topic = self._find(partition[0])
        if topic is None:
            await trio.lowlevel.checkpoint()
            return 0
        rows = [(topic.id, partition[1], offset) for offset in offsets]
        delete = partial(self._connection.executemany, _DROP, rows)
        dropped = (await self._database.write(self._connection, delete)).rowcount
        await self._database.sync()
        return max(dropped, 0)  # -1 for no rows at all

    async def groups(self) -> Mapping[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for group, topic in await self._rows(_GROUPS):
            groups.setdefault(group, []).append(topic)
        return groups

    async def purge(self, now: float, limit: int) -> int:
        return await self._database.write(
            self._connection, partial(purge, self._connection, now, limit, keep_unread=self._keep_unread)
        )

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._open_connection is None:
            raise RuntimeError("the event log is not open")
        return self._open_connection

    async def _rows(self, statement: str, *parameters: object) -> list[Any]:
        await trio.lowlevel.checkpoint()
        with engine_errors():
            return self._connection.execute(statement, parameters).fetchall()

    async def _by_partition(self, topic: str, statement: str, *parameters: object) -> dict[Partition, int]:
        found = self._find(topic)
        if found is None:
            await trio.lowlevel.checkpoint()
            return {}
        return {(topic, p): offset for p, offset in await self._rows(statement, *parameters, found.id)}

    def _find(self, topic: str) -> TopicRow | None:
        with engine_errors():
            return self._appender.find(self._connection, topic)

    def _place(self, partition: Partition) -> tuple[int, int]:
        """The keys of *partition* in the tables. Raises ValueError when there is no such partition."""
        topic = self._find(partition[0])
        if topic is None or not 0 <= partition[1] < topic.partitions:
            raise ValueError(f"there is no partition {partition[0]}/{partition[1]}")
        return topic.id, partition[1]

    def _take(self, partition: Partition, offset: int, most: int) -> list[Record]:
        topic = self._appender.find(self._connection, partition[0])
        if topic is None:
            return []
        rows = self._connection.execute(_RECORDS, (topic.id, partition[1], offset, most)).fetchall()
        return [_record(partition, row) for row in rows]


def _record(partition: Partition, row: Sequence[Any]) -> Record:
    offset, timestamp_ms, key, value, headers = row
    return Record(*partition, offset, timestamp_ms, key, value, headers_of(headers))
