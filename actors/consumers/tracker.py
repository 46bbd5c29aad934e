"""Which records of one partition are done, in whatever order they were finished. Pure.

What is committed is the lowest unfinished offset, and beside it, in the commit's metadata, what is done above: so a
restart hands over again neither what was finished nor what waited behind it. Offsets that the log no longer has
(compacted, expired, markers of transactions) are never seen and hold nothing up.

Source: parallel-consumer's `PartitionState`.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import NamedTuple

from actors.consumers.done_map import (
    BITS_ALWAYS_FIT,
    MAP_LIMIT,
    Progress,
    Range,
    Unreadable,
    decode,
    encode,
    encode_map,
)
from backends.ports.groups import Commit, Start

CROWDED = 0.75
"""From this share of the metadata's limit on, no further record is taken."""


class Epoch(NamedTuple):
    """An assignment of the partition, and how often it was rewound or given up since. Work of another one is stale."""

    assignment: int
    turn: int = 0


class PartitionTracker:
    """From the assignment of a partition to its loss.

    `position` is the next offset that is expected from the log, `committed` what the log has stored. Records below
    `suspect_below` may have been in hand when the last owner's process ended. `unreadable`: the metadata that was
    found was not ours.
    """

    def __init__(self, start: Start) -> None:
        self.epoch = Epoch(start.epoch)
        self.position = start.offset
        self.committed = Commit(start.offset, start.metadata)
        self.unreadable = False
        try:
            found = decode(start.offset, start.metadata)
        except Unreadable:
            self.unreadable = True
            found = Progress(start.offset)
        self.suspect_below = found.mark
        self.mark = found.mark
        """Below it, a record may be in hand: the log says so."""
        self._ahead = deque(found.done)  # done in an earlier life and not met yet
        self._unfinished: OrderedDict[int, float] = OrderedDict()  # by offset, in order: when it was taken
        self._version = 0
        self._crowded = (-1, False)

    def begin(self, offset: int, at: float) -> bool:
        """Take the record at *offset*, at the time *at*; False: it was done in an earlier life.

        Offsets ascend; call `rewind` before one below `position`.
        """
        if offset < self.position:
            raise ValueError(f"offset {offset} is below the position {self.position}: rewind first")
        self.position = offset + 1
        self._version += 1
        ahead = self._ahead
        while ahead and ahead[0][1] <= offset:
            ahead.popleft()
        if ahead and ahead[0][0] <= offset:
            return False
        self._unfinished[offset] = at
        return True

    def done(self, offset: int, epoch: Epoch) -> bool:
        """The record at *offset* is finished; False when it is of another epoch, or not unfinished."""
        if epoch != self.epoch or self._unfinished.pop(offset, None) is None:
            return False
        self._version += 1
        return True

    def rewind(self, offset: int) -> None:
        """The log goes on below `position`: somebody wants it all again, so nothing above *offset* is done."""
        self.epoch = self.epoch._replace(turn=self.epoch.turn + 1)
        self.position = offset
        self._unfinished.clear()
        self._ahead.clear()
        self._version += 1

    def give_up(self) -> None:
        """The partition is somebody else's: what is still at work is stale from now on."""
        self.epoch = self.epoch._replace(turn=self.epoch.turn + 1)

    @property
    def unfinished(self) -> int:
        """How many records were taken and are not done."""
        return len(self._unfinished)

    def oldest(self) -> float | None:
        """When the lowest unfinished record was taken."""
        return next(iter(self._unfinished.values()), None)

    def committable(self) -> int:
        """The lowest unfinished offset; all below it is done or does not exist."""
        return next(iter(self._unfinished), self.position)

    def commit(self, mark: int = 0) -> Commit:
        """What to commit now, when records below *mark* may be in hand."""
        offset = self.committable()
        return Commit(offset, encode(offset, mark, self._done())[0])

    def stored(self, commit: Commit, mark: int = 0) -> None:
        """The log has stored *commit*, made with *mark*."""
        self.committed = commit
        self.mark = mark

    def crowded(self) -> bool:
        """Whether what is done above the committable offset nearly fills the metadata: take nothing more.

        The records that hold the offset up are taken already, so this cannot lock up.
        """
        top = self._ahead[-1][1] if self._ahead else self.position
        if top - self.committable() < CROWDED * BITS_ALWAYS_FIT:
            return False
        if self._crowded[0] != self._version:
            text, fitted = encode_map(self.committable(), self._done())
            self._crowded = self._version, not fitted or len(text) >= CROWDED * MAP_LIMIT
        return self._crowded[1]

    def _done(self) -> list[Range]:
        """The finished stretches above the lowest unfinished offset."""
        if not self._ahead and self.position - self.committable() == len(self._unfinished):
            return []  # the usual case at once: nothing above it is done
        return list(_joined(self._stretches()))

    def _stretches(self) -> Iterator[Range]:
        at = self.committable()
        for offset in self._unfinished:
            if offset > at:
                yield at, offset
            at = offset + 1
        if self.position > at:
            yield at, self.position
        for first, end in self._ahead:
            if end > self.position:
                yield max(first, self.position), end


def _joined(ranges: Iterator[Range]) -> Iterator[Range]:
    """Neighbours that touch become one."""
    last: Range | None = None
    for first, end in ranges:
        if last is not None and last[1] == first:
            last = (last[0], end)
        else:
            if last is not None:
                yield last
            last = (first, end)
    if last is not None:
        yield last
