"""The half of a cell that senders see: asks and tells into its mailbox, from any task."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import trio

from actors.runtime.envelope import Envelope
from actors.runtime.errors import ActorRestarting, ActorStopped, AskCycle, MailboxFull
from actors.runtime.measures import Measured
from actors.runtime.queue import MessageQueue
from actors.runtime.spec import Child
from actors.runtime.trace import running_in
from actors.runtime.waits import cycle, held_up, serving

if TYPE_CHECKING:
    from actors.runtime.at_once import AtOnce
    from actors.runtime.system import System


class Inbox:
    def __init__(self, spec: Child, system: System) -> None:
        self.spec = spec
        self.id = spec.id
        self.system = system
        self.queue = MessageQueue(spec.mailbox, self._lose)
        self.backoff_until = -math.inf
        self.waits: dict[Envelope, Inbox] = {}
        """The asks that this actor's handler awaits, and where they were sent to."""
        self._refuses_asks = False
        self.at_once: AtOnce | None = None
        """Of the incarnation, where its handler is a plain function."""
        self.prompt = False
        """Asks are handled in their asker's turn: there is `at_once`, and nothing waits in the queue."""
        self._clock = system.clock
        self.measured = Measured() if system.clock is not None else None
        """What its messages went through, over all incarnations; None where the system does not measure."""

    async def ask(self, message: Any) -> Any:
        if self.prompt and (at_once := self.at_once) is not None:
            await trio.lowlevel.checkpoint_if_cancelled()
            answer = at_once.ask(message)
            if type(answer) is Envelope:
                return await self._wait_for(answer)
            if at_once.turn_is_over():
                await trio.lowlevel.cancel_shielded_checkpoint()  # it was handled: too late to be cancelled
            return answer
        envelope = Envelope(message, True, running_in.get())
        if self._clock is not None:
            envelope.sent = self._clock()
        if self._refuses_asks:
            await trio.lowlevel.checkpoint()
            raise ActorRestarting(f"{self.id} is restarting; the message was not handled", self.retry_after())
        caller = None if serving.get() is None else held_up()
        if caller is not None:
            await self.refuse_cycle(caller)
            caller.waits[envelope] = self
        try:
            try:
                self.queue.accept(envelope)
            except trio.WouldBlock:
                await self._ask_when_full(envelope)
            return await envelope.wait()
        except trio.ClosedResourceError:  # raised by the queue alone
            await trio.lowlevel.checkpoint()
            raise self._stopped() from None
        finally:
            if caller is not None:
                del caller.waits[envelope]

    def ask_now(self, message: Any) -> Any:
        if not self.prompt or self.at_once is None or self.at_once.running:
            raise trio.WouldBlock
        answer = self.at_once.ask(message)
        if type(answer) is Envelope:
            answer.abandoned = True
            raise trio.WouldBlock
        return answer

    async def _wait_for(self, envelope: Envelope) -> Any:
        """For the answer to a message that has been handed over."""
        caller = None if serving.get() is None else held_up()
        if caller is None:
            return await envelope.wait()
        caller.waits[envelope] = self
        try:
            return await envelope.wait()
        finally:
            del caller.waits[envelope]

    async def _ask_when_full(self, envelope: Envelope) -> None:
        if self.queue.on_full == "wait":
            await self.queue.put(envelope)
        elif self.queue.offer(envelope) != "accepted":
            await trio.lowlevel.checkpoint()
            raise self._full()

    async def tell(self, message: Any) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.prompt = False
        envelope = self._told(message)
        try:
            offer = self.queue.offer(envelope)
            if offer == "full" and self.queue.on_full == "wait" and not self._waits_for_the_teller():
                await self.queue.put(envelope)
                return
        except trio.ClosedResourceError:
            self.system.dead_letters.record(self.id, message, "stopped")
            await trio.lowlevel.checkpoint()
            raise self._stopped() from None
        await trio.lowlevel.cancel_shielded_checkpoint()  # it was sent: too late to be cancelled
        if offer == "full":
            raise self._full()

    def try_tell(self, message: Any) -> bool:
        self.prompt = False
        try:
            return self.queue.offer(self._told(message)) == "accepted"
        except trio.ClosedResourceError:
            self.system.dead_letters.record(self.id, message, "stopped")
            return False

    def _told(self, message: Any) -> Envelope:
        trace = running_in.get()
        envelope = Envelope(message, False, None if trace is None else trace.linked())
        if self._clock is not None:
            envelope.sent = self._clock()
        return envelope

    def retry_after(self) -> float:
        return max(0.0, self.backoff_until - trio.current_time())

    async def refuse_cycle(self, caller: Inbox) -> None:
        """Raise AskCycle, after a checkpoint, if *caller*'s handler would wait for itself by waiting for this."""
        way = cycle(caller, self)
        if way:
            await trio.lowlevel.checkpoint()
            raise AskCycle(way)

    def answers_later(self, _envelope: Envelope) -> bool:
        """Whether that message was left to be answered later, and so needs no turn of the handler any more."""
        return False

    def _waits_for_the_teller(self) -> bool:
        """Whether room in this full mailbox would come only after the caller's own handler has returned."""
        caller = held_up()
        return caller is not None and bool(cycle(caller, self))

    def _full(self) -> MailboxFull:
        return MailboxFull(f"the mailbox of {self.id} is full ({self.queue.capacity} messages)")

    def _stopped(self) -> ActorStopped:
        return ActorStopped(f"{self.id} has stopped; the message was not handled")

    def _lose(self, envelope: Envelope) -> None:
        """The mailbox's policy gave this one up."""
        self.system.dead_letters.record(self.id, envelope.message, "dropped")
        envelope.fail(self._full())
