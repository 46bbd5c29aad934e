"""Turns at trying the records that may have killed the process.

After a kill, every group has a few records that were in hand. Each is tried alone, and counted before it is tried. If
two groups did so at once, the record that kills would be charged together with somebody else's: so they take turns,
one record in the whole process at a time. What has not killed it within a moment is no such record (or not of the
kind that can be told from its neighbours), and the next may go: a slow handler holds nobody up for long.
"""

from collections.abc import Awaitable, Callable

import trio

MOMENT = 0.25
"""Seconds that a turn lasts at most."""


class Trials:
    """One for the whole process; those who share it share the turns."""

    def __init__(self) -> None:
        self._turn = trio.Semaphore(1)

    async def run(self, trial: Callable[[], Awaitable[None]]) -> None:
        """Wait for the turn and run *trial*; the turn ends with it, or after `MOMENT`."""
        await self._turn.acquire()
        turn = _Turn(self._turn)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(turn.end_later)
                await trial()
                nursery.cancel_scope.cancel()
        finally:
            turn.end()


class _Turn:
    def __init__(self, semaphore: trio.Semaphore) -> None:
        self._semaphore: trio.Semaphore | None = semaphore

    async def end_later(self) -> None:
        await trio.sleep(MOMENT)
        self.end()

    def end(self) -> None:
        semaphore, self._semaphore = self._semaphore, None
        if semaphore is not None:
            semaphore.release()
