"""One process at a time in a data directory: an advisory lock on `<data.dir>/lock` that names its holder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backends.embedded.errors import CannotOpen, DataDirectoryInUse


@contextmanager
def data_directory_lock(directory: Path) -> Iterator[None]:
    """Hold *directory* (created if absent, mode 0700) for the length of the block.

    Raises `DataDirectoryInUse` at once, with the holder's pid, when another process holds it, and
    `CannotOpen` when the lock file cannot be made. The kernel lets go when the process ends, however it
    ends, so a file left behind by a killed process locks nobody out.
    """
    path = directory / "lock"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not O_TRUNC: until the lock is ours, the pid in the file is its holder's.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotOpen(path, error.strerror or str(error)) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataDirectoryInUse(directory, _pid_in(fd)) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        # The file stays: unlinking it would let two processes lock two files of the same name.
        yield
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def _pid_in(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None
