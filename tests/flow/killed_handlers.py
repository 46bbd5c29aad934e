"""Handlers of the kill rounds, loaded by the server process: what they did is in a file, a line an effect."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import trio

from actors.consumers.partitions import Delivered
from actors.consumers.retry import Permanent

EFFECTS = Path(os.environ.get("WEIR_TEST_EFFECTS", os.devnull))


def note(line: str) -> None:
    """One write to a file opened for appending: whole, or not there. It survives a kill."""
    descriptor = os.open(EFFECTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


class Effects:
    """Each user's changes in order. A name that begins with `slow`, `failing`, `broken` or `poison` does as it says."""

    async def handle(self, events: Sequence[Delivered]) -> None:
        for _, event in events:
            change = msgspec.json.decode(event.data)
            entity = change.get("entity") or {}
            name = str(entity.get("name", ""))
            if name.startswith("slow"):
                await trio.sleep(0.05)
            if name.startswith("broken"):
                raise Permanent("broken for good")
            if name.startswith("failing"):
                raise OSError("it fails each time")
            if name.startswith("poison"):
                note(f"poison {event.id} {change['id']} {change['version']} {time.time()}")
                os.kill(os.getpid(), 9)
            note(f"done {event.id} {change['id']} {change['version']} {time.time()}")
