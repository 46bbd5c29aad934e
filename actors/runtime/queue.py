"""The queue behind a mailbox: bounded, owned by the cell, so that what is queued survives a restart."""

from collections.abc import Callable
from typing import Literal

import trio

from actors.runtime.envelope import Envelope
from actors.runtime.spec import Mailbox

Offer = Literal["accepted", "full", "dropped"]


class MessageQueue:
    """A trio memory channel with an overflow policy.

    The cell keeps both ends. Each incarnation reads through a receiver of its own (`open_receiver`);
    closing that one wakes the reader and leaves the queue as it is.
    """

    __slots__ = ("_lose", "_receive", "_send", "accept", "capacity", "on_full")

    def __init__(self, mailbox: Mailbox, lose: Callable[[Envelope], None]) -> None:
        """*lose* is called with each message that the policy gives up."""
        self._lose = lose
        self.capacity = mailbox.capacity
        self.on_full = mailbox.on_full
        self._send, self._receive = trio.open_memory_channel[Envelope](mailbox.capacity)
        self.accept = self._send.send_nowait
        """The quick half of `offer`: put it in, or raise trio.WouldBlock; trio.ClosedResourceError after `close`."""

    def open_receiver(self) -> trio.MemoryReceiveChannel[Envelope]:
        return self._receive.clone()

    def offer(self, envelope: Envelope) -> Offer:
        """Put *envelope* in without waiting: `accepted`, if need be in the place of the oldest one; `dropped`
        under `drop_new`; or `full`. Raises trio.ClosedResourceError after `close`.
        """
        try:
            self.accept(envelope)
        except trio.WouldBlock:
            if self.on_full == "drop_new":
                self._lose(envelope)
                return "dropped"
            if self.on_full != "drop_old":
                return "full"
            oldest = self._receive.receive_nowait()
            self.accept(envelope)
            self._lose(oldest)
        return "accepted"

    async def put(self, envelope: Envelope) -> None:
        """Wait for room. Raises trio.ClosedResourceError when closed meanwhile. Cancelled: not put."""
        await self._send.send(envelope)

    def close(self) -> None:
        """Accept nothing more; what is queued can still be received. Waiting senders get ClosedResourceError."""
        self._send.close()

    def take_rest(self) -> list[Envelope]:
        """Empty the queue for good."""
        rest: list[Envelope] = []
        try:
            while True:
                rest.append(self._receive.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            self._receive.close()
        return rest

    def depth(self) -> int:
        return self._receive.statistics().current_buffer_used
