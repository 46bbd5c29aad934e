"""An event log in memory, for tests of what stands in front of a log."""

from collections.abc import Mapping, Sequence

import trio

from backends.ports.event_log import NO_METADATA, Attempt, Topic
from backends.ports.events import NewRecord, Offsets, Partition, Record
from backends.ports.groups import Commit


class MemoryLog:
    """Every record in a list by partition; a record whose value is b"bad" is refused, with its whole append."""

    def __init__(self) -> None:
        self.known: dict[str, Topic] = {}
        self.records: dict[Partition, list[Record | None]] = {}
        self.commits: dict[tuple[str, Partition], Commit] = {}
        self.tries: dict[tuple[str, Partition], dict[int, Attempt]] = {}
        self.appends: list[tuple[int, bool]] = []
        self.fetches = 0
        self.starts: dict[Partition, int] = {}
        self.fault: Exception | None = None

    async def ensure_topics(self, topics: Sequence[Topic]) -> None:
        await self._work()
        for topic in topics:
            self.known[topic.name] = topic
            for number in range(topic.partitions):
                self.records.setdefault((topic.name, number), [])

    async def topics(self) -> list[Topic]:
        await self._work()
        return list(self.known.values())

    async def append(self, records: Sequence[NewRecord], *, durable: bool) -> list[tuple[int, int]]:
        await self._work()
        if any(record.value == b"bad" for record in records):
            raise ValueError("too large")
        self.appends.append((len(records), durable))
        placed = []
        for record in records:
            number = record.partition or 0
            partition = self.records.setdefault((record.topic, number), [])
            partition.append(Record(record.topic, number, len(partition), 0, record.key, record.value, record.headers))
            placed.append((number, len(partition) - 1))
        return placed

    async def fetch(self, positions: Offsets, limit: int) -> list[Record]:
        self.fetches += 1
        await self._work()
        found = [
            record
            for partition, offset in positions.items()
            for record in self.records.get(partition, [])[offset:]
            if record is not None
        ]
        return found[:limit]

    async def end_offsets(self, topic: str) -> dict[Partition, int]:
        await self._work()
        return {partition: len(rows) for partition, rows in self.records.items() if partition[0] == topic}

    async def start_offsets(self, topic: str) -> dict[Partition, int]:
        await self._work()
        return {partition: self.starts.get(partition, 0) for partition in self.records if partition[0] == topic}

    async def committed(self, group: str, topic: str) -> dict[Partition, int]:
        await self._work()
        return {p: commit.offset for p, commit in (await self.progress(group, topic)).items()}

    async def progress(self, group: str, topic: str) -> dict[Partition, Commit]:
        return {p: commit for (g, p), commit in self.commits.items() if g == group and p[0] == topic}

    async def commit(self, group: str, offsets: Offsets, metadata: Mapping[Partition, str] = NO_METADATA) -> None:
        await self._work()
        for partition, offset in offsets.items():
            self.commits[group, partition] = Commit(offset, metadata.get(partition, ""))

    async def attempts(self, group: str, partition: Partition) -> dict[int, Attempt]:
        await self._work()
        return dict(self.tries.get((group, partition), {}))

    async def save_attempt(self, group: str, partition: Partition, offset: int, attempt: Attempt) -> None:
        await self._work()
        self.tries.setdefault((group, partition), {})[offset] = attempt

    async def read(self, partition: Partition, offset: int) -> Record | None:
        await self._work()
        rows = self.records.get(partition, [])
        return rows[offset] if offset < len(rows) else None

    async def drop(self, partition: Partition, offsets: Sequence[int]) -> int:
        await self._work()
        for offset in offsets:
            self.records[partition][offset] = None
        return len(offsets)

    async def groups(self) -> Mapping[str, list[str]]:
        await self._work()
        groups: dict[str, set[str]] = {}
        for group, (topic, _) in self.commits:
            groups.setdefault(group, set()).add(topic)
        return {group: sorted(topics) for group, topics in groups.items()}

    async def _work(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.fault is not None:
            raise self.fault
