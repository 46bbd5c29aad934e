"""What one incarnation takes from its cell: messages to give again, then those of the mailbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from actors.runtime.dead_letters import Reason
from actors.runtime.envelope import Envelope
from actors.runtime.later import OpenLaters

if TYPE_CHECKING:
    from actors.runtime.cell import Cell

# A batch costs one schedule point, so that other tasks run; so do this many messages handed over one by one.
MESSAGES_A_TURN = 16
# trio looks at deadlines once a pass of its loop. Who comes back later than this may have been in a pass that took
# long, in which an asker's time has run out unseen. In seconds.
LONG_PASS = 0.001


class Intake:
    """Reads through a receiver of its own: closing it leaves the queue to the next incarnation."""

    def __init__(self, cell: Cell, laters: OpenLaters) -> None:
        self._cell = cell
        self._laters = laters
        self._receiver = cell.queue.open_receiver()
        self._receive_nowait = self._receiver.receive_nowait
        self._clock = cell.system.now
        self._leave_queue = False
        self._left_of_turn = 0
        self._looked_at: Envelope | None = None
        self._empty = False  # just seen to be, by `next`
        self.taken_at = self._clock()
        self.now: float | None = None
        """The time, where whoever takes the next message knows it."""
        self.drained = False
        """Whether nothing was left in the mailbox by what was taken last."""

    def close(self) -> None:
        """Give nothing more."""
        self._leave_queue = True
        self._cell.prompt = False
        self._receiver.close()

    def next(self) -> Envelope | None:
        """The next message of this turn, if there is one at once and it may be handed over; else it is for `take`."""
        if not self._left_of_turn or self._cell.retry:
            return None
        try:
            envelope = self._receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            self._empty = True
            return None
        self._left_of_turn -= 1
        now, self.now = self.now, None
        before, self.taken_at = self.taken_at, self._clock() if now is None else now
        if envelope.abandoned or self.taken_at - before > LONG_PASS:
            self._looked_at = envelope
            return None
        return envelope

    async def take(self, limit: int) -> list[Envelope] | None:
        """The next messages to hand over, without those whose asker no longer waits; None: stop serving.

        A schedule point at least: it begins a turn.
        """
        self._left_of_turn = MESSAGES_A_TURN - 1
        self.now = None
        empty, self._empty = self._empty, False
        first, self._looked_at = self._looked_at, None
        if first is not None:
            return await self._let_expire([first])
        if self._cell.retry:
            return await self._take_retry()
        receive_nowait = self._receive_nowait
        try:
            # Messages first, then one schedule point, in which more may arrive.
            if not empty:
                first = receive_nowait()
                await trio.lowlevel.cancel_shielded_checkpoint()
        except trio.WouldBlock:
            pass  # to wait in here would keep the exception for as long
        except (trio.EndOfChannel, trio.ClosedResourceError):
            return None
        if first is None:
            self._cell.prompt = self._cell.at_once is not None and not self._leave_queue
            try:
                first = await self._receiver.receive()
            except (trio.EndOfChannel, trio.ClosedResourceError):
                return None
        taken = [first]
        try:
            while len(taken) < limit:
                taken.append(receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            pass
        self.drained = len(taken) < limit
        before, self.taken_at = self.taken_at, self._clock()
        if self.taken_at - before > LONG_PASS:
            return await self._let_expire(taken)
        return self._awaited(taken, "abandoned")

    async def _take_retry(self) -> list[Envelope] | None:
        """One message that was in hand at the crash: alone, so that one that crashes again hurts no other.

        Alone also means after the one before it was answered, if that was left for later. Messages from the
        mailbox are handed over meanwhile: no answer given later holds up those that need not wait for it.
        """
        if not self._laters.any_retried():
            await trio.lowlevel.checkpoint()
            if self._leave_queue:
                return None
            return await self._let_expire([self._cell.retry.pop(0)])
        try:
            with trio.CancelScope() as retry_due:
                self._laters.on_settled = retry_due.cancel
                first = await self._receiver.receive()
                return await self._let_expire([first])
        except trio.EndOfChannel:
            await self._laters.wait()  # stopping, with the mailbox empty: what is given again is still ours
        except trio.ClosedResourceError:
            return None
        finally:
            self._laters.on_settled = None
        return []

    async def _let_expire(self, taken: list[Envelope]) -> list[Envelope]:
        """*taken* without those whose time has run out in this very pass of the loop."""
        taken = self._awaited(taken, "abandoned")
        if trio.lowlevel.current_statistics().seconds_to_next_deadline <= 0:
            await trio.lowlevel.cancel_shielded_checkpoint()  # the next pass begins with cancelling those
            taken = self._awaited(taken, "expired")
        self.taken_at = self._clock()
        return taken

    def _awaited(self, taken: list[Envelope], otherwise: Reason) -> list[Envelope]:
        """Those that are not abandoned; the others go to dead letters for that reason."""
        for envelope in taken:
            if envelope.abandoned:
                break
        else:
            return taken
        for envelope in taken:
            if envelope.abandoned:
                self._cell.system.dead_letters.record(self._cell.id, envelope.message, otherwise)
        return [envelope for envelope in taken if not envelope.abandoned]
