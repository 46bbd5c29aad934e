"""A folder for each process of a data directory, so that no two write to one spool; and what a process left in its own.

A slot is held by an advisory lock, which the kernel lets go of when its holder ends, however it ends.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import structlog

from backends.spool.spool import Spool

log = structlog.get_logger(__name__)

_AT_ONCE = 500
_A_RUN = 20_000
"""Between two runs requests go first; more runs read what is left more often."""


@contextmanager
def claimed_slot(root: Path) -> Iterator[int]:
    """The lowest number from 1 on whose folder below *root* nobody holds; held for the length of the block."""
    with ExitStack() as stack:
        for slot in count(1):
            if stack.enter_context(_held(root / str(slot))):
                yield slot
                return


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


class Adoption:
    """Moves what waits in spools that nobody holds (their process was killed, or was replaced) into *own*.

    At least once: a kill between the two spools leaves records in both.
    """

    def __init__(self, root: Path, own: Spool, capacity: int) -> None:
        self._root = root
        self._own = own
        self._capacity = capacity

    async def run(self) -> int:
        """Move some; how many. 0: there is nothing, or no room."""
        for folder in sorted(self._root.iterdir()) if self._root.is_dir() else ():
            if folder.is_dir() and (moved := self._move(folder)):
                return moved
        return 0

    def _move(self, folder: Path) -> int:
        with _held(folder) as ours:
            left = sorted(folder.glob("*.spool")) if ours else ()
            if not left:
                return 0
            orphan = Spool(folder, self._capacity)
            moved = 0
            try:
                while orphan.events and moved < _A_RUN:
                    records = orphan.head(_AT_ONCE)
                    if not self._own.write(records):
                        return moved
                    orphan.forget()
                    moved += len(records)
            finally:
                orphan.close()
            if not orphan.events:
                for file in folder.glob("*.spool"):
                    file.unlink()
                (folder / "position").unlink(missing_ok=True)
            if moved:
                log.info("spool.adopted", folder=str(folder), events=moved)
            return moved
