"""What one incarnation has in hand: it takes what is queued, hands it over, and settles the results."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from actors.runtime.at_once import AtOnce, awaitable, is_plain
from actors.runtime.envelope import Envelope
from actors.runtime.errors import InjectedCrash, NeverAnswered, Reject
from actors.runtime.events import LaterDropped
from actors.runtime.intake import Intake
from actors.runtime.later import Later, OpenLaters
from actors.runtime.trace import Trace, running_in

if TYPE_CHECKING:
    from actors.runtime.actor import Actor
    from actors.runtime.cell import Cell

# To look at the depth of a mailbox costs as much as a third of a message does; so many turns pay for it together.
LOOK_EVERY = 4


class Hand:
    """The messages that an incarnation answers for: those being handled, and those whose Later is open."""

    def __init__(self, cell: Cell, ending: Callable[[], bool]) -> None:
        """*ending*: whether the incarnation is being cancelled: its end decides about open Laters then."""
        self.cell = self._cell = cell
        self._ending = ending
        self._envelopes: list[Envelope] = []
        self._since: float | None = None
        self.laters = OpenLaters(self._deliver_later, self._never_answered)
        self.intake = Intake(cell, self.laters)
        self._at_once: AtOnce | None = None

    def since(self) -> float | None:
        """When, by the system's `now`, the oldest message in hand was taken; one whose Later is open is in hand."""
        since = self.laters.since()
        return self._since if since is None else since

    def load(self) -> int:
        """How many messages are in hand."""
        return len(self._envelopes) + len(self.laters)

    def traces(self) -> list[Trace | None]:
        """The traces of the messages being handled, in order."""
        if self._at_once is not None and self._at_once.running:
            return [running_in.get()]
        return [envelope.trace for envelope in self._envelopes]

    def give_up(self) -> list[Envelope]:
        """After the tasks have ended: all that is still in hand, in order of arrival."""
        # Once each: a batch may fail half settled.
        rest = list(dict.fromkeys([*self.laters.take_all(), *self._envelopes]))
        self._envelopes = []
        self._since = None
        return rest

    async def serve(self, actor: Actor[Any]) -> None:
        """Take what is queued, hand it over, settle the results; until there is nothing more to take."""
        handle: Callable[[Any], Awaitable[Any]] = actor.handle
        handle_batch: Callable[[Any], Awaitable[Any]] | None = actor.handle_batch
        self._cell.at_once = self._at_once = at_once = AtOnce(self, actor) if is_plain(actor) else None
        if at_once is not None:
            handle = awaited(self._cell.id, handle)
            handle_batch = None if handle_batch is None else awaited(self._cell.id, handle_batch)
        try:
            if handle_batch is None:
                await self._serve_singly(handle)
            else:
                await self._serve_batches(handle_batch, actor.batch_limit)
        finally:
            self._cell.prompt = False
        if at_once is not None and at_once.error is not None:
            raise at_once.error

    def answer_later(self, envelope: Envelope, later: Later, since: float) -> None:
        """Handled in its asker's turn, and to be answered later."""
        self.laters.add(later, envelope, since)

    def crash_with(self, envelope: Envelope) -> None:
        """The handler raised in an asker's turn: this message is in hand, and the incarnation ends."""
        self._envelopes = [envelope]
        self.intake.close()

    async def _serve_singly(self, handle: Callable[[Any], Awaitable[Any]]) -> None:
        cell, intake, next, take = self._cell, self.intake, self.intake.next, self.intake.take
        now, measured = cell.system.now, cell.measured
        trace: Trace | None = None
        turns = 0
        if measured is not None:
            note_age, note_latency = measured.ages.append, measured.latencies.append
        while True:
            envelope = next()
            if envelope is None:
                batch = await take(1)
                if batch is None:
                    return
                if not batch:
                    continue
                envelope = batch.pop()
                turns += 1
                if measured is not None and not turns % LOOK_EVERY:
                    measured.depth.add(1 + cell.queue.depth())
                    measured.sort_in()
            self._envelopes = [envelope]
            self._since = since = intake.taken_at
            if cell.crash_next:
                self._crash()
            if envelope.trace is not trace:
                trace = envelope.trace
                running_in.set(trace)
            try:
                result = await handle(envelope.message)
            except Reject as refusal:
                result = refusal
            if isinstance(result, (Later, Reject)):
                self._settle(envelope, result)
            else:  # written out, for it is done for nearly every message
                cell.handled += 1
                if not envelope.answer(result):
                    self._too_late(envelope)
            if measured is not None and not isinstance(result, Later):
                intake.now = at = now()
                note_age(at - since)
                note_latency(at - envelope.sent)
            self._envelopes = []
            self._since = None
            del envelope, result  # kept while it waits, they would keep a dropped Later from being seen

    async def _serve_batches(self, handle_batch: Callable[[Any], Awaitable[Any]], limit: int) -> None:
        take, now, measured = self.intake.take, self._cell.system.now, self._cell.measured
        while (batch := await take(limit)) is not None:
            if not batch:
                continue
            self._envelopes = batch
            self._since = since = self.intake.taken_at
            if self._cell.crash_next:
                self._crash()
            if measured is not None:
                measured.depth.add(len(batch) + (0 if self.intake.drained else self._cell.queue.depth()))
            results = await handle_batch([envelope.message for envelope in batch])
            if len(results) != len(batch):
                raise TypeError(
                    f"{self._cell.id}: handle_batch returned {len(results)} results for {len(batch)} messages"
                )
            settled = batch
            for envelope, result in zip(batch, results, strict=True):
                self._settle(envelope, result)
                if isinstance(result, Later) and settled is batch:
                    settled = [one for one, its in zip(batch, results, strict=True) if not isinstance(its, Later)]
            if measured is not None:
                measured.many(settled, since, now())
            self._envelopes = []
            self._since = None
            del batch, settled, results, envelope, result  # as above

    def _crash(self) -> None:
        self._cell.crash_next = False
        raise InjectedCrash(f"{self._cell.id} was told to crash on its next message")

    def _settle(self, envelope: Envelope, result: Any) -> None:
        if isinstance(result, (Later, Reject)):
            if isinstance(result, Later):
                self.laters.add(result, envelope, self.intake.taken_at)
            else:
                self._deliver(envelope, False, result.error)
            return
        self._cell.handled += 1
        if not envelope.answer(result):
            self._too_late(envelope)

    def _deliver(self, envelope: Envelope, ok: bool, result: Any) -> None:
        self._cell.handled += 1
        if not ok and not envelope.is_ask:
            self._cell.system.dead_letters.record(self._cell.id, envelope.message, "rejected")
        if not (envelope.answer(result) if ok else envelope.reject(result)):
            self._too_late(envelope)

    def _too_late(self, envelope: Envelope) -> None:
        if envelope.abandoned:
            self._cell.system.dead_letters.record(self._cell.id, envelope.message, "late")

    def _deliver_later(self, envelope: Envelope, ok: bool, result: Any, since: float) -> None:
        self._deliver(envelope, ok, result)
        if self._cell.measured is not None:
            self._cell.measured.one(envelope, since, self._cell.system.now())

    def _never_answered(self, envelope: Envelope) -> bool:
        if self._ending():
            return False
        cell = self._cell
        cell.system.report(LaterDropped(cell.id, type(envelope.message).__name__))
        envelope.fail(NeverAnswered(f"{cell.id} dropped its promise to answer later; it may have been handled"))
        return True


def awaited(id: str, handle: Callable[[Any], Any]) -> Callable[[Any], Awaitable[Any]]:
    """A plain function as the loop takes it."""

    async def handled(given: Any) -> Any:
        result = handle(given)
        if isinstance(result, Coroutine):
            result.close()
            raise awaitable(id)
        return result

    return handled
