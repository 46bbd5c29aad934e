"""Persisted attempts and dropped dead letters, for a bus that keeps neither."""

from collections.abc import Sequence

import trio

from backends.ports import ledger as port
from backends.ports.event_log import Attempt
from backends.ports.events import Offsets, Partition
from backends.postgres.pool import Pool
from backends.postgres.text import from_text, to_text

_ATTEMPTS = (
    "SELECT offset_, attempts, due_at, first_at, last_at, error FROM attempt "
    "WHERE grp = $1 AND topic = $2 AND partition = $3"
)
_SAVE = """
INSERT INTO attempt (grp, topic, partition, offset_, attempts, due_at, first_at, last_at, error)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (grp, topic, partition, offset_) DO UPDATE SET attempts = excluded.attempts, due_at = excluded.due_at,
    first_at = excluded.first_at, last_at = excluded.last_at, error = excluded.error
"""
_FORGET = """
DELETE FROM attempt a USING unnest($2::text[], $3::integer[], $4::bigint[]) AS u (topic, partition, next_offset)
WHERE a.grp = $1 AND a.topic = u.topic AND a.partition = u.partition AND a.offset_ < u.next_offset
"""
_DROP = "INSERT INTO dropped (topic, partition, offset_) SELECT $1, $2, unnest($3::bigint[]) ON CONFLICT DO NOTHING"
_DROPPED = "SELECT offset_ FROM dropped WHERE topic = $1 AND partition = $2 AND offset_ = ANY($3::bigint[])"


class ConsumerLedger(port.ConsumerLedger):
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def attempts(self, group: str, partition: Partition) -> dict[int, Attempt]:
        rows = await self._pool.fetch(_ATTEMPTS, group, *partition)
        return {
            offset: Attempt(attempts, due_at, first_at, last_at, from_text(error))
            for offset, attempts, due_at, first_at, last_at, error in map(tuple, rows)
        }

    async def save_attempt(self, group: str, partition: Partition, offset: int, attempt: Attempt) -> None:
        a = attempt
        await self._pool.execute(
            _SAVE, group, *partition, offset, a.attempts, a.due_at, a.first_at, a.last_at, to_text(a.error)
        )

    async def forget_attempts_below(self, group: str, offsets: Offsets) -> None:
        if not offsets:
            await trio.lowlevel.checkpoint()
            return
        topics, partitions = zip(*offsets, strict=True)
        await self._pool.execute(_FORGET, group, list(topics), list(partitions), list(offsets.values()))

    async def drop(self, partition: Partition, offsets: Sequence[int]) -> int:
        return await self._pool.execute(_DROP, *partition, sorted(set(offsets)))

    async def dropped(self, partition: Partition, offsets: Sequence[int]) -> set[int]:
        return {row[0] for row in await self._pool.fetch(_DROPPED, *partition, list(offsets))}
