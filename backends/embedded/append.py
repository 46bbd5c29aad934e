"""Appending to the log's tables inside somebody's transaction: the one place that chooses partitions and offsets.

The event log and the entity store both append through it, each on its own connection.
"""

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from backends.embedded.murmur2 import partition_of
from backends.ports.events import NewRecord

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...]).decode

_FIND = "SELECT id, partitions FROM topic WHERE name = ?"
_CREATE = "INSERT INTO topic (name, partitions, retention_s) VALUES (?, ?, ?) RETURNING id"
_CREATE_PART = "INSERT INTO part (topic_id, p) VALUES (?, ?)"
_RESERVE = "UPDATE part SET next_offset = next_offset + ? WHERE topic_id = ? AND p = ? RETURNING next_offset"
_INSERT = "INSERT INTO record (topic_id, p, off, timestamp_ms, key, value, headers) VALUES (?, ?, ?, ?, ?, ?, ?)"


class Prepared(NamedTuple):
    """A record whose headers are encoded: nothing about it can fail any more but the disk."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    headers: bytes | None


class TopicRow(NamedTuple):
    id: int
    partitions: int


def prepare(record: NewRecord) -> Prepared:
    """Pure. Raises what msgspec raises for headers that are not (str, bytes)."""
    headers = _encode(record.headers) if record.headers else None
    return Prepared(record.topic, record.partition, record.key, record.value, headers)


def headers_of(stored: bytes | None) -> tuple[tuple[str, bytes], ...]:
    return _decode(stored) if stored else ()


class Appender:
    """Remembers what never changes (a topic's number and partitions) and whose turn it is without a key."""

    def __init__(self) -> None:
        self._topics: dict[str, TopicRow] = {}
        self._turns: dict[str, int] = {}
        # The events of one write share their key, and busy entities come again: 6 µs saved each time.
        self._partition_of = lru_cache(maxsize=4096)(partition_of)

    def append(
        self, connection: sqlite3.Connection, records: Sequence[Prepared], timestamp_ms: int
    ) -> list[tuple[int, int]]:
        """Append in order; returns (partition, offset) of each. Call it in a transaction, once.

        A topic that does not exist is created with one partition and no expiry. Raises ValueError for a
        partition that its topic does not have.
        """
        topics = {name: self._topic(connection, name) for name in {record.topic for record in records}}
        places = [(topics[record.topic].id, self._partition(record, topics[record.topic])) for record in records]
        free = _reserve(connection, places)
        result: list[tuple[int, int]] = []
        rows: list[tuple[object, ...]] = []
        for record, place in zip(records, places, strict=True):
            offset = free[place]
            free[place] = offset + 1
            result.append((place[1], offset))
            rows.append((*place, offset, timestamp_ms, record.key, record.value, record.headers))
        connection.executemany(_INSERT, rows)
        return result

    def find(self, connection: sqlite3.Connection, name: str) -> TopicRow | None:
        known = self._topics.get(name)
        if known is None:
            found = connection.execute(_FIND, (name,)).fetchall()
            if found:
                known = self._topics[name] = TopicRow(*found[0])
        return known

    def _topic(self, connection: sqlite3.Connection, name: str) -> TopicRow:
        # A topic made here is not remembered before it is found again: this transaction may be rolled back.
        return self.find(connection, name) or create_topic(connection, name, 1, None)

    def _partition(self, record: Prepared, topic: TopicRow) -> int:
        if record.partition is not None:
            if not 0 <= record.partition < topic.partitions:
                raise ValueError(f"topic {record.topic} has no partition {record.partition}")
            return record.partition
        if topic.partitions == 1:
            return 0
        if record.key is not None:
            return self._partition_of(record.key, topic.partitions)
        turn = self._turns.get(record.topic, 0)
        self._turns[record.topic] = turn + 1
        return turn % topic.partitions


def create_topic(connection: sqlite3.Connection, name: str, partitions: int, retention_s: float | None) -> TopicRow:
    ((topic_id,),) = connection.execute(_CREATE, (name, partitions, retention_s)).fetchall()
    connection.executemany(_CREATE_PART, [(topic_id, p) for p in range(partitions)])
    return TopicRow(topic_id, partitions)


def _reserve(connection: sqlite3.Connection, places: Sequence[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """Take the offsets of a whole batch, one statement a partition; returns the first one of each."""
    counts: dict[tuple[int, int], int] = {}
    for place in places:
        counts[place] = counts.get(place, 0) + 1
    first: dict[tuple[int, int], int] = {}
    for place, count in counts.items():
        ((following,),) = connection.execute(_RESERVE, (count, *place)).fetchall()
        first[place] = following - count
    return first
