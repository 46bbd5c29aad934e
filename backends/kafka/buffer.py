"""Records read ahead of their consumer: bounded in each partition, handed out fairly. Pure."""

from collections import deque
from collections.abc import Collection, Iterable

from backends.ports.events import Partition, Record


class Buffer:
    """A partition is full at *high* records or *high_bytes*, and has room again at half of both, so that it is not
    paused and resumed with every record.

    What is added all the same is kept: a fetch that is under way when a partition fills is not to be lost.
    """

    def __init__(self, *, high: int = 2_000, high_bytes: int = 4 << 20) -> None:
        self._high = high
        self._high_bytes = high_bytes
        self._records: dict[Partition, deque[Record]] = {}
        self._bytes: dict[Partition, int] = {}
        self._full: set[Partition] = set()

    def __len__(self) -> int:
        return sum(map(len, self._records.values()))

    def add(self, partition: Partition, records: Iterable[Record]) -> None:
        queue = self._records.setdefault(partition, deque())
        for record in records:
            queue.append(record)
            self._bytes[partition] = self._bytes.get(partition, 0) + _size(record)
        if len(queue) >= self._high or self._bytes.get(partition, 0) >= self._high_bytes:
            self._full.add(partition)

    def take(self, limit: int, partitions: Collection[Partition]) -> list[Record]:
        """Up to *limit* of *partitions*, each partition's in the order they came: an equal share each, and what
        some leave goes to the others. Whose turn it was comes last the next time."""
        taken: list[Record] = []
        while len(taken) < limit:
            hungry = [p for p, queue in self._records.items() if queue and p in partitions]
            if not hungry:
                break
            share = max(1, (limit - len(taken)) // len(hungry))
            for partition in hungry[: limit - len(taken)]:
                taken += self._pop(partition, share)
        return taken

    def full(self, partition: Partition) -> bool:
        return partition in self._full

    def holds(self, partition: Partition) -> bool:
        return bool(self._records.get(partition))

    def clear(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self._records.pop(partition, None)
            self._bytes.pop(partition, None)
            self._full.discard(partition)

    def _pop(self, partition: Partition, most: int) -> list[Record]:
        queue = self._records.pop(partition)
        popped = [queue.popleft() for _ in range(min(most, len(queue)))]
        self._records[partition] = queue  # to the end of the line
        self._bytes[partition] -= sum(map(_size, popped))
        if len(queue) <= self._high // 2 and self._bytes[partition] <= self._high_bytes // 2:
            self._full.discard(partition)
        return popped


def _size(record: Record) -> int:
    return len(record.value or b"") + len(record.key or b"")
