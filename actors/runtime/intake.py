"""What one incarnation takes from its cell: messages to give again, then those of the mailbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from actors.runtime.envelope import Envelope
from actors.runtime.later import OpenLaters

if TYPE_CHECKING:
    from actors.runtime.cell import Cell

# A batch costs one schedule point, so that other tasks run; so do this many messages handed over one by one.
MESSAGES_A_TURN = 16


class Intake:
    """Reads through a receiver of its own: closing it leaves the queue to the next incarnation."""

    def __init__(self, cell: Cell, laters: OpenLaters) -> None:
        self._cell = cell
        self._laters = laters
        self._receiver = cell.queue.open_receiver()
        self._leave_queue = False
        self._since_schedule_point = 0

    def close(self) -> None:
        """Give nothing more."""
        self._leave_queue = True
        self._receiver.close()

    async def take(self, limit: int) -> list[Envelope] | None:
        """The next messages to hand over, without those whose asker no longer waits; None: stop serving."""
        if self._cell.retry:
            return await self._take_retry()
        receiver = self._receiver
        try:
            # Messages first, then one schedule point a batch, in which more may arrive.
            first = receiver.receive_nowait()
            self._since_schedule_point += 1
            if limit > 1 or self._since_schedule_point >= MESSAGES_A_TURN:
                self._since_schedule_point = 0
                await trio.lowlevel.cancel_shielded_checkpoint()
        except trio.WouldBlock:
            try:
                first = await receiver.receive()
            except (trio.EndOfChannel, trio.ClosedResourceError):
                return None
        except (trio.EndOfChannel, trio.ClosedResourceError):
            return None
        taken = [first]
        try:
            while len(taken) < limit:
                taken.append(receiver.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            pass
        now = trio.current_time()
        for envelope in taken:
            if envelope.abandoned or envelope.deadline <= now:
                return self._without_expired(taken, now)
        return taken

    async def _take_retry(self) -> list[Envelope] | None:
        """One message that was in hand at the crash: alone, so that one that crashes again hurts no other.

        Alone also means after the one before it was answered, if that was left for later. Messages from the
        mailbox are handed over meanwhile: no answer given later holds up those that need not wait for it.
        """
        if not self._laters.any_retried():
            await trio.lowlevel.checkpoint()
            if self._leave_queue:
                return None
            return self._without_expired([self._cell.retry.popleft()], trio.current_time())
        try:
            with trio.CancelScope() as retry_due:
                self._laters.on_settled = retry_due.cancel
                first = await self._receiver.receive()
                return self._without_expired([first], trio.current_time())
        except trio.EndOfChannel:
            await self._laters.wait()  # stopping, with the mailbox empty: what is given again is still ours
        except trio.ClosedResourceError:
            return None
        finally:
            self._laters.on_settled = None
        return []

    def _without_expired(self, taken: list[Envelope], now: float) -> list[Envelope]:
        alive = []
        for envelope in taken:
            if envelope.abandoned or envelope.deadline <= now:
                self._cell.expire(envelope)
            else:
                alive.append(envelope)
        return alive
