"""An event log in memory, with the semantics of the durable ones; its times are trio's, so virtual in tests."""

from collections.abc import Mapping, Sequence

import trio

from backends.ports import event_log as port
from backends.ports.entities import StoreUnavailable
from backends.ports.event_log import NO_METADATA, Attempt, Topic
from backends.ports.events import NewRecord, Offsets, Partition, Record
from backends.ports.groups import Commit


class MemoryEventLog(port.EventLog):
    """Outlives the consumers on it, as a disk would. `away`: every method raises `StoreUnavailable`."""

    def __init__(self) -> None:
        self.away = False
        self._topics: dict[str, Topic] = {}
        self._records: dict[Partition, list[Record | None]] = {}
        self._progress: dict[tuple[str, Partition], Commit] = {}
        self._attempts: dict[tuple[str, Partition], dict[int, Attempt]] = {}

    async def open(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    async def ensure_topics(self, topics: Sequence[Topic]) -> None:
        await self._reach()
        for topic in topics:
            partitions = self._topics[topic.name].partitions if topic.name in self._topics else topic.partitions
            self._create(topic._replace(partitions=partitions))

    async def topics(self) -> list[Topic]:
        await self._reach()
        return sorted(self._topics.values())

    async def append(self, records: Sequence[NewRecord], *, durable: bool) -> list[tuple[int, int]]:
        await self._reach()
        places = [self._partition(record) for record in records]
        result: list[tuple[int, int]] = []
        for record, partition in zip(records, places, strict=True):
            if record.topic not in self._topics:
                self._create(Topic(record.topic, 1, None))
            held = self._records[record.topic, partition]
            at = int(trio.current_time() * 1000)
            held.append(Record(record.topic, partition, len(held), at, record.key, record.value, record.headers))
            result.append((partition, len(held) - 1))
        return result

    async def fetch(self, positions: Offsets, limit: int) -> list[Record]:
        await self._reach()
        found = [
            [record for record in self._records.get(partition, ())[offset:] if record is not None]
            for partition, offset in positions.items()
        ]
        share = max(1, limit // max(1, len(found)))
        fair = [record for records in found for record in records[:share]]
        rest = [record for records in found for record in records[share:]]
        return sorted((fair + rest)[:limit], key=lambda record: (record.topic, record.partition, record.offset))

    async def end_offsets(self, topic: str) -> dict[Partition, int]:
        await self._reach()
        return {partition: len(held) for partition, held in self._records.items() if partition[0] == topic}

    async def start_offsets(self, topic: str) -> dict[Partition, int]:
        await self._reach()
        return {partition: 0 for partition in self._records if partition[0] == topic}

    async def committed(self, group: str, topic: str) -> dict[Partition, int]:
        return {partition: commit.offset for partition, commit in (await self.progress(group, topic)).items()}

    async def progress(self, group: str, topic: str) -> dict[Partition, Commit]:
        await self._reach()
        return {at: commit for (of, at), commit in self._progress.items() if of == group and at[0] == topic}

    async def commit(self, group: str, offsets: Offsets, metadata: Mapping[Partition, str] = NO_METADATA) -> None:
        await self._reach()
        for partition in offsets:
            self._known(partition)
        for partition, offset in offsets.items():
            self._progress[group, partition] = Commit(offset, metadata.get(partition, ""))
            kept = self._attempts.get((group, partition), {})
            self._attempts[group, partition] = {at: attempt for at, attempt in kept.items() if at >= offset}

    async def attempts(self, group: str, partition: Partition) -> dict[int, Attempt]:
        await self._reach()
        return dict(self._attempts.get((group, partition), {}))

    async def save_attempt(self, group: str, partition: Partition, offset: int, attempt: Attempt) -> None:
        await self._reach()
        self._known(partition)
        self._attempts.setdefault((group, partition), {})[offset] = attempt

    async def read(self, partition: Partition, offset: int) -> Record | None:
        await self._reach()
        held = self._records.get(partition, [])
        return held[offset] if 0 <= offset < len(held) else None

    async def drop(self, partition: Partition, offsets: Sequence[int]) -> int:
        await self._reach()
        held = self._records.get(partition, [])
        there = {offset for offset in offsets if 0 <= offset < len(held) and held[offset] is not None}
        for offset in there:
            held[offset] = None
        return len(there)

    async def groups(self) -> Mapping[str, list[str]]:
        await self._reach()
        found: dict[str, set[str]] = {}
        for group, (topic, _) in self._progress:
            found.setdefault(group, set()).add(topic)
        return {group: sorted(topics) for group, topics in sorted(found.items())}

    async def purge(self, now: float, limit: int) -> int:
        """Nothing expires here."""
        await self._reach()
        return 0

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise StoreUnavailable("the event log is away")

    def _create(self, topic: Topic) -> None:
        self._topics[topic.name] = topic
        for partition in range(topic.partitions):
            self._records.setdefault((topic.name, partition), [])

    def _partition(self, record: NewRecord) -> int:
        partitions = self._topics[record.topic].partitions if record.topic in self._topics else 1
        if record.partition is None:
            return sum(record.key or b"") % partitions  # stable for a key; which one is nobody's business
        if not 0 <= record.partition < partitions:
            raise ValueError(f"topic {record.topic} has no partition {record.partition}")
        return record.partition

    def _known(self, partition: Partition) -> None:
        if partition not in self._records:
            raise ValueError(f"there is no partition {partition[0]}/{partition[1]}")
