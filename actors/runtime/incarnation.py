"""One life of an actor: from its factory to its on_stop.

Everything it awaits runs in one cancel scope, shielded from the outside, because trio cancels a nursery at
once while a tree stops in order. `on_stop` runs after that scope, in one with a deadline of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio

from actors.runtime.actor import Actor
from actors.runtime.cause import root_cause
from actors.runtime.envelope import Envelope
from actors.runtime.errors import InjectedCrash, Killed, NeverAnswered, Reject, StartTimeout
from actors.runtime.events import Exit, LaterDropped, ShutdownOverrun, StopFailed
from actors.runtime.intake import Intake
from actors.runtime.later import Later, OpenLaters
from actors.runtime.waits import serving

if TYPE_CHECKING:
    from actors.runtime.cell import Cell


# Of the shutdown budget, for what is queued and in hand: a handler that hangs must not take on_stop's time too.
DRAIN_SHARE = 0.8


class Incarnation:
    """One run of `cell.spec.factory()`. `started` is set when it is ready or has failed to become so."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.started = trio.Event()
        self.exited = trio.Event()
        self.became_ready = False
        self.task: trio.lowlevel.Task | None = None  # the one that runs on_start, the handlers and on_stop
        self.nursery: trio.Nursery | None = None  # of the spawned tasks
        self.exit: Exit | None = None
        self.actor: Actor[Any] | None = None
        self._scope = trio.CancelScope(shield=True)
        self._stop_requested = False
        self._drain = False  # a requested stop is for good: what is queued is handled first
        self._killed = False
        self._end = cell.system.stop_by  # absolute: on_stop must have returned by then
        self._in_hand: list[Envelope] = []
        self._in_hand_since: float | None = None
        self.laters = OpenLaters(self._deliver, self._never_answered)
        self._intake = Intake(cell, self.laters)

    # Asked by the cell.

    def request_stop(self, *, drain: bool) -> None:
        """Stop after the messages in hand; *drain*: after the queued ones too. A start under way is cancelled."""
        self._stop_requested = True
        self._drain = drain
        self.end_by(trio.current_time() + self.cell.spec.shutdown)
        if not self.became_ready:
            self._scope.cancel()
        elif drain:
            self.cell.queue.close()  # the loop ends when the queue is empty
        else:
            self.request_end()

    def request_end(self) -> None:
        """Serve no more messages after those in hand."""
        self._intake.close()
        self.laters.wake()

    def kill(self) -> None:
        """Cancel what is in hand and what was spawned, now."""
        self._stop_requested = self._killed = True
        self.end_by(trio.current_time() + self.cell.spec.shutdown)
        self._scope.cancel()

    def end_by(self, end: float) -> None:
        """Once it stops, it must be gone at *end* (absolute); the earliest of several holds."""
        self._end = min(self._end, end)
        if self._stop_requested:
            now = trio.current_time()
            self._scope.deadline = min(self._scope.deadline, now + (self._end - now) * DRAIN_SHARE)

    def in_hand_since(self) -> float | None:
        """When the oldest message in hand was taken; one whose Later is open is in hand."""
        since = self.laters.since()
        return self._in_hand_since if since is None else since

    def load(self) -> int:
        """How many messages are in hand."""
        return len(self._in_hand) + len(self.laters)

    # The life.

    async def run(self) -> None:
        actor: Actor[Any] | None = None
        error: BaseException | None = None
        self.task = trio.lowlevel.current_task()
        serving.set(self)
        try:
            with self._scope:
                try:
                    actor = self._create()
                    await self._live(actor)
                except BaseException as caught:
                    error = root_cause(caught)
                    if error is None:
                        raise  # nothing but Cancelled: the scope's business
                    # Whatever of it was Cancelled ends here, at the scope that cancelled.
            overrun = self._stop_requested and self.became_ready and self._scope.cancelled_caught
            if overrun and not self._killed:
                self.cell.system.report(ShutdownOverrun(self.cell.id, "drain", self.cell.spec.shutdown))
            self._settle_hand(error)
            if actor is not None and self.became_ready:
                await self._stop(actor)
        finally:
            self._intake.close()
            self._finish(error)

    def _create(self) -> Actor[Any]:
        actor = self.cell.spec.factory()
        if not isinstance(actor, Actor):
            raise TypeError(f"the factory of {self.cell.id} returned {type(actor).__name__}, not an Actor")
        actor._cell = self.cell
        self.actor = actor
        return actor

    async def _live(self, actor: Actor[Any]) -> None:
        timeout = self.cell.spec.start_timeout
        async with trio.open_nursery() as nursery:
            actor._nursery = self.nursery = nursery
            with trio.move_on_after(timeout) as start:
                await actor.on_start()
            if start.cancelled_caught:
                raise StartTimeout(f"{self.cell.id}: on_start took longer than start_timeout={timeout} s")
            self.became_ready = True
            self.cell.became_ready()
            self.started.set()
            await self._serve(actor)
            with trio.move_on_after(self.cell.spec.shutdown):
                while self.laters.any_awaited():
                    await self.laters.wait()
            nursery.cancel_scope.cancel()

    async def _serve(self, actor: Actor[Any]) -> None:
        """Take what is queued, hand it over, settle the results; until there is nothing more to take."""
        step = self._step_batch if actor.handle_batch is not None else self._step_single
        handler: Callable[[Any], Awaitable[Any]] = actor.handle_batch or actor.handle
        limit = actor.batch_limit if actor.handle_batch is not None else 1
        while (batch := await self._intake.take(limit)) is not None:
            if not batch:
                continue
            self._in_hand = batch
            self._in_hand_since = trio.current_time()
            if self.cell.crash_next:
                self.cell.crash_next = False
                raise InjectedCrash(f"{self.cell.id} was told to crash on its next message")
            await step(handler, batch)
            self._in_hand = []
            self._in_hand_since = None

    async def _step_single(self, handle: Callable[[Any], Awaitable[Any]], batch: list[Envelope]) -> None:
        envelope = batch[0]
        try:
            result = await handle(envelope.message)
        except Reject as refusal:
            result = refusal
        self._settle(envelope, result)

    async def _step_batch(self, handle_batch: Callable[[Any], Awaitable[Any]], batch: list[Envelope]) -> None:
        results = await handle_batch([envelope.message for envelope in batch])
        if len(results) != len(batch):
            raise TypeError(f"{self.cell.id}: handle_batch returned {len(results)} results for {len(batch)} messages")
        for envelope, result in zip(batch, results, strict=True):
            self._settle(envelope, result)

    def _settle(self, envelope: Envelope, result: Any) -> None:
        if isinstance(result, Later):
            self.laters.add(result, envelope, self._in_hand_since)
        elif isinstance(result, Reject):
            self._deliver(envelope, False, result.error)
        else:
            self._deliver(envelope, True, result)

    def _deliver(self, envelope: Envelope, ok: bool, result: Any) -> None:
        cell = self.cell
        cell.handled += 1
        if not ok and not envelope.is_ask:
            cell.system.dead_letters.record(cell.id, envelope.message, "rejected")
        delivered = envelope.answer(result) if ok else envelope.reject(result)
        if not delivered and envelope.abandoned:
            cell.system.dead_letters.record(cell.id, envelope.message, "late")

    def _never_answered(self, envelope: Envelope) -> bool:
        cell = self.cell
        if self._scope.cancel_called or self.nursery is None or self.nursery.cancel_scope.cancel_called:
            return False
        cell.system.report(LaterDropped(cell.id, type(envelope.message).__name__))
        envelope.fail(NeverAnswered(f"{cell.id} dropped its promise to answer later; it may have been handled"))
        return True

    # The end.

    def _settle_hand(self, error: BaseException | None) -> None:
        """After the tasks have ended: answer for the messages in hand and the open Laters, in order of arrival."""
        # Once each: a batch may fail half settled.
        in_hand = list(dict.fromkeys([*self.laters.take_all(), *self._in_hand]))
        self._in_hand = []
        self._in_hand_since = None
        if in_hand:
            self.cell.crashed(in_hand, error or self._cut_off_by())
        elif error is not None:
            self.cell.last_error = error

    def _cut_off_by(self) -> Exception:
        if self._killed:
            return Killed(f"{self.cell.id} was killed")
        return trio.TooSlowError("cut off by the end of its shutdown budget")

    async def _stop(self, actor: Actor[Any]) -> None:
        budget = self.cell.spec.shutdown
        self.cell.set_state("stopping")
        end = min(self._end, trio.current_time() + budget)
        with trio.CancelScope(deadline=end, shield=True) as scope:
            try:
                await actor.on_stop()
            except BaseException as caught:
                error = root_cause(caught)
                if error is None:
                    raise  # Cancelled by the budget
                self.cell.system.report(StopFailed(self.cell.id, error))
                if not isinstance(error, Exception):
                    self.cell.system.fail(error)
        if scope.cancelled_caught:
            self.cell.system.report(ShutdownOverrun(self.cell.id, "on_stop", budget))

    def _finish(self, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, Exception):
            self.cell.system.fail(error)  # KeyboardInterrupt, SystemExit: the program's end, in order
        if self._stop_requested:
            self.exit = Exit("killed" if self._killed or self._scope.cancelled_caught else "stopped", error)
        elif error is not None:
            self.exit = Exit("crashed" if self.became_ready else "start_failed", error)
        else:
            self.exit = Exit("normal")
        self.exited.set()
        was_started = self.started.is_set()
        self.started.set()  # a failed start is reported by Cell.start's return value
        if self._stop_requested:
            self.cell.stopped(self.exit, error, final=self._drain)
        elif was_started:
            self.cell.exited(self.exit)
