"""A spool in a folder of files, written at the end of the newest and read at the beginning of the oldest.

`write` returns once the kernel has the bytes: they survive kill -9. `sync` makes them survive the machine; the
publisher calls it once a second while anything is waiting. How far the oldest file was read is kept in `position`,
without fsync: after a kill -9 the last records that were delivered may be delivered again.
"""

import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog
import trio

from backends.ports import spool as port
from backends.ports.events import NewRecord
from backends.spool.framing import MAGIC, Frame, decode, encode, frames

log = structlog.get_logger(__name__)

_SEGMENT = 8 << 20
_CACHED = 20_000
_POSITION = struct.Struct("<QQI")


class _Segment(NamedTuple):
    number: int
    frames: deque[Frame]


class _Cached(NamedTuple):
    segment: int
    frame: Frame
    records: Sequence[NewRecord]


class Spool(port.Spool):
    """Opened by its constructor, which reads what is left of an earlier process; raises OSError.

    Args:
        folder: of this publisher alone; made if missing.
        capacity: bytes of what waits; a segment more may be on disk.
        now: Unix seconds.
        segment: bytes after which the next file begins.
    """

    def __init__(
        self,
        folder: Path,
        capacity: int,
        *,
        now: Callable[[], float] = time.time,
        segment: int = _SEGMENT,
    ) -> None:
        self._folder = folder
        self._capacity = capacity
        self._now = now
        self._segment_size = segment
        self._segments: deque[_Segment] = deque()
        self._cache: deque[_Cached] = deque()
        """The records of the oldest frames, when they were never out of memory."""
        self._cached = 0
        self._handed = 0
        self._size = 0
        self._events = 0
        self._end = len(MAGIC)
        self._fd = -1
        self._reading = 0, -1
        self._dirty: set[int] = set()
        folder.mkdir(parents=True, exist_ok=True)
        self._position = os.open(folder / "position", os.O_RDWR | os.O_CREAT, 0o600)
        self._recover()
        self._begin_segment()

    @property
    def size(self) -> int:
        return self._size

    @property
    def events(self) -> int:
        return self._events

    def age(self) -> float:
        oldest = next((segment.frames[0] for segment in self._segments if segment.frames), None)
        return max(0.0, self._now() - oldest.written_ms / 1000) if oldest is not None else 0.0

    def write(self, records: Sequence[NewRecord]) -> bool:
        written_ms = int(self._now() * 1000)
        encoded = encode(records, written_ms)
        if self._size + len(encoded) > self._capacity:
            return False
        if self._end >= self._segment_size:
            self._begin_segment()
        if not self._put(encoded):
            return False
        frame = Frame(self._end, self._end + len(encoded), written_ms, len(records))
        self._end = frame.end
        segment = self._segments[-1]
        segment.frames.append(frame)
        if self._cached == self._events and self._cached < _CACHED:  # all that waits is in memory, and so is this
            self._cache.append(_Cached(segment.number, frame, records))
            self._cached += len(records)
        self._size += len(encoded)
        self._events += len(records)
        self._dirty.add(segment.number)
        return True

    def head(self, limit: int) -> Sequence[NewRecord]:
        found: list[NewRecord] = []
        self._handed = 0
        for segment in self._segments:
            for frame in segment.frames:
                if found and len(found) + frame.records > limit:
                    return found
                found += self._records(segment.number, frame)
                self._handed += 1
        return found

    def forget(self) -> None:
        for _ in range(self._handed):
            segment = self._oldest()
            frame = segment.frames.popleft()
            if self._cache and self._cache[0].segment == segment.number and self._cache[0].frame == frame:
                self._cached -= len(self._cache.popleft().records)
            self._size -= frame.end - frame.start
            self._events -= frame.records
            at = segment.number, frame.end
        if self._handed:
            self._handed = 0
            self._remember(*at)
        if not self._events and self._end >= self._segment_size // 8:
            self._begin_segment()  # an empty spool does not keep a long file
        self._oldest()

    async def sync(self) -> None:
        dirty, self._dirty = self._dirty, set()
        paths = [self._path(number) for number in sorted(dirty)]
        await trio.to_thread.run_sync(_fsync, [*paths, self._folder])

    def close(self) -> None:
        self._close_reading()
        for fd in (self._fd, self._position):
            if fd >= 0:
                os.close(fd)
        self._fd = self._position = -1

    # Files.

    def _records(self, number: int, frame: Frame) -> Sequence[NewRecord]:
        at = self._handed
        if at < len(self._cache) and self._cache[at].segment == number and self._cache[at].frame == frame:
            return self._cache[at].records
        if self._reading[0] != number:
            self._close_reading()
            self._reading = number, os.open(self._path(number), os.O_RDONLY)
        return decode(os.pread(self._reading[1], frame.end - frame.start, frame.start))

    def _close_reading(self) -> None:
        if self._reading[1] >= 0:
            os.close(self._reading[1])
        self._reading = 0, -1

    def _put(self, encoded: bytes) -> bool:
        """Write all of it, or nothing."""
        try:
            written = os.pwrite(self._fd, encoded, self._end)
            if written == len(encoded):
                return True
            problem = "the disk is full"
        except OSError as error:
            problem = str(error)
        log.error("spool.not_written", folder=str(self._folder), problem=problem)
        os.ftruncate(self._fd, self._end)
        return False

    def _begin_segment(self) -> None:
        number = max(self._segments[-1].number if self._segments else 0, self._remembered()[0]) + 1
        fd = os.open(self._path(number), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.pwrite(fd, MAGIC, 0)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._end = fd, len(MAGIC)
        self._segments.append(_Segment(number, deque()))

    def _oldest(self) -> _Segment:
        """The oldest segment with a frame, or the newest of all; those before it are done with."""
        while len(self._segments) > 1 and not self._segments[0].frames:
            done = self._segments.popleft().number
            if self._reading[0] == done:
                self._close_reading()
            self._path(done).unlink(missing_ok=True)
        return self._segments[0]

    def _remember(self, number: int, end: int) -> None:
        packed = struct.pack("<QQ", number, end)
        os.pwrite(self._position, packed + struct.pack("<I", zlib.crc32(packed)), 0)

    def _recover(self) -> None:
        done_number, done_end = self._remembered()
        for path in sorted(self._folder.glob("*.spool")):
            number = int(path.stem)
            content = path.read_bytes()
            whole = list(frames(content))
            end = whole[-1].end if whole else min(len(content), len(MAGIC))
            if end < len(content):
                log.warning("spool.cut_short", file=str(path), bytes=len(content) - end)
            waiting = deque(frame for frame in whole if (number, frame.end) > (done_number, done_end))
            self._segments.append(_Segment(number, waiting))
            self._size += sum(frame.end - frame.start for frame in waiting)
            self._events += sum(frame.records for frame in waiting)
        if self._events:
            log.info("spool.recovered", folder=str(self._folder), events=self._events)

    def _remembered(self) -> tuple[int, int]:
        """The segment and the end of the last frame that was delivered; before all of them if that is not known."""
        stored = os.pread(self._position, _POSITION.size, 0)
        if len(stored) < _POSITION.size:
            return 0, 0
        number, end, checksum = _POSITION.unpack(stored)
        return (number, end) if zlib.crc32(stored[:16]) == checksum else (0, 0)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:016d}.spool"


def _fsync(paths: Sequence[Path]) -> None:
    for path in paths:
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue  # delivered in the meantime
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
