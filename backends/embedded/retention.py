"""Deleting records beyond their topic's retention, a bounded number a transaction."""

import sqlite3
from typing import NamedTuple

_EXPIRING = (
    "SELECT topic_id, p, log_start, next_offset, retention_s FROM part JOIN topic ON topic.id = part.topic_id "
    "WHERE retention_s IS NOT NULL AND log_start < next_offset ORDER BY topic_id, p"
)
# Every group that ever committed to the topic needs each of its partitions, from the start where it has
# not committed yet.
_READ_BY_ALL = (
    "SELECT min(coalesce(mine.next_offset, 0)) FROM (SELECT DISTINCT grp FROM committed WHERE topic_id = :topic) AS g "
    "LEFT JOIN committed AS mine ON mine.grp = g.grp AND mine.topic_id = :topic AND mine.p = :p"
)
_OLDEST = "SELECT off, timestamp_ms FROM record WHERE topic_id = ? AND p = ? AND off < ? ORDER BY off LIMIT ?"
_DELETE = "DELETE FROM record WHERE topic_id = ? AND p = ? AND off < ?"
_FORGET = "DELETE FROM attempt WHERE topic_id = ? AND p = ? AND off < ?"
_START = "UPDATE part SET log_start = ? WHERE topic_id = ? AND p = ?"


class _Part(NamedTuple):
    topic_id: int
    p: int
    log_start: int
    next_offset: int
    retention_s: float


def purge(connection: sqlite3.Connection, now: float, limit: int, *, keep_unread: bool) -> int:
    """Delete up to *limit* expired records, oldest first; call it in a transaction. Returns how many.

    A partition's log is cut at its first record that is still wanted (too young, or, with *keep_unread*,
    not read by a group that is known), so what remains has no holes.
    """
    deleted = 0
    for row in connection.execute(_EXPIRING).fetchall():
        if deleted >= limit:
            break
        deleted += _cut(connection, _Part(*row), now, limit - deleted, keep_unread)
    return deleted


def _cut(connection: sqlite3.Connection, part: _Part, now: float, most: int, keep_unread: bool) -> int:
    place = (part.topic_id, part.p)
    end = part.next_offset
    if keep_unread:
        ((read_by_all,),) = connection.execute(_READ_BY_ALL, {"topic": part.topic_id, "p": part.p}).fetchall()
        end = min(end, read_by_all) if read_by_all is not None else end
    keep_from_ms = (now - part.retention_s) * 1000
    new_start = part.log_start
    for offset, timestamp_ms in connection.execute(_OLDEST, (*place, end, most)).fetchall():
        if timestamp_ms >= keep_from_ms:
            break
        new_start = offset + 1
    if new_start == part.log_start:
        return 0
    deleted = connection.execute(_DELETE, (*place, new_start)).rowcount
    connection.execute(_FORGET, (*place, new_start))
    connection.execute(_START, (new_start, *place))
    return deleted
