"""E-mails as `.eml` files: what takes the relay's place where none is configured."""

import os
from collections.abc import Sequence
from pathlib import Path

import trio

from actors.consumers.failure import failure_of
from actors.consumers.notification.mail import compose
from actors.consumers.notification.outcomes import Failed, Outcome, Refused, Sent
from actors.consumers.retry import Permanent
from backends.ports.stores import Delivery


class OutboxSender:
    """Writes each e-mail to *folder*, named by the delivery: a second attempt overwrites the first."""

    batch = 32

    def __init__(self, folder: Path, *, sender: str = "weir@localhost") -> None:
        self._folder = folder
        self._sender = sender

    async def send(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        outcomes: dict[str, Outcome] = {}
        contents: dict[Path, bytes] = {}
        for delivery in deliveries:
            try:
                contents[self._folder / f"{delivery.id}.eml"] = compose(delivery, self._sender).content
            except Permanent as error:
                outcomes[delivery.id] = Refused(failure_of(error))
        written: Outcome = Sent()
        try:
            if contents:
                await write_atomically(self._folder, contents)
        except OSError as error:
            written = Failed(failure_of(error))
        return [outcomes.get(delivery.id, written) for delivery in deliveries]


async def write_atomically(folder: Path, contents: dict[Path, bytes]) -> None:
    """Write files into *folder*: readers see each whole or not at all, after a power failure too.

    The short steps run on the loop (each of them in a thread would want the GIL back), the waits for the disk are
    one call in a thread. Raises OSError; some of the files may be written then. No temporary file stays in any case.
    """
    opened: dict[Path, int] = {}
    try:
        _write(folder, contents, opened)
        await trio.to_thread.run_sync(_flush, list(opened.values()))
        for path in contents:
            path.with_suffix(".tmp").replace(path)
            os.close(opened.pop(path))
    finally:
        for path, descriptor in opened.items():
            os.close(descriptor)
            path.with_suffix(".tmp").unlink(missing_ok=True)
    await trio.to_thread.run_sync(_flush_folder, folder)


def _write(folder: Path, contents: dict[Path, bytes], opened: dict[Path, int]) -> None:
    """Into temporary files, their descriptors into *opened* as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        opened[path] = os.open(path.with_suffix(".tmp"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        left = memoryview(content)
        while left:
            left = left[os.write(opened[path], left) :]


def _flush(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.fsync(descriptor)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
