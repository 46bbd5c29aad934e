"""One life of an actor: from its factory to its on_stop.

Everything it awaits runs in one cancel scope, shielded from the outside, because trio cancels a nursery at
once while a tree stops in order. `on_stop` runs after that scope, in one with a deadline of its own.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import trio

from actors.runtime.actor import Actor
from actors.runtime.cause import root_cause
from actors.runtime.errors import Killed, StartTimeout
from actors.runtime.events import Exit, ShutdownOverrun, StopFailed
from actors.runtime.hand import Hand
from actors.runtime.trace import running_in
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
        self.reported = False
        self._scope = trio.CancelScope(shield=True)
        self._stop_requested = False
        self._drain = False  # a requested stop is for good: what is queued is handled first
        self._killed = False
        self._end = cell.system.stop_by  # absolute: on_stop must have returned by then
        self.hand = Hand(cell, self._is_cancelled)

    # Asked by the cell.

    def request_stop(self, *, drain: bool) -> None:
        """Stop after the messages in hand; *drain*: after the queued ones too. A start under way is cancelled."""
        self._stop_requested = True
        self._drain = drain
        self.cell.prompt = False
        self.end_by(trio.current_time() + self.cell.spec.shutdown)
        if not self.became_ready:
            self._scope.cancel()
        elif drain:
            self.cell.queue.close()  # the loop ends when the queue is empty
        else:
            self.request_end()

    def request_end(self) -> None:
        """Serve no more messages after those in hand."""
        self.hand.intake.close()
        self.hand.laters.wake()

    def kill(self) -> None:
        """Cancel what is in hand and what was spawned, now."""
        self._stop_requested = self._killed = True
        self.cell.prompt = False
        self.end_by(trio.current_time() + self.cell.spec.shutdown)
        self._scope.cancel()

    def end_by(self, end: float) -> None:
        """Once it stops, it must be gone at *end* (absolute); the earliest of several holds."""
        self._end = min(self._end, end)
        if self._stop_requested:
            now = trio.current_time()
            self._scope.deadline = min(self._scope.deadline, now + (self._end - now) * DRAIN_SHARE)

    def _is_cancelled(self) -> bool:
        return self._scope.cancel_called or self.nursery is None or self.nursery.cancel_scope.cancel_called

    # The life.

    async def run(self) -> None:
        actor: Actor[Any] | None = None
        error: BaseException | None = None
        self.task = trio.lowlevel.current_task()
        serving.set(self)
        running_in.set(None)  # not that of whoever started it
        try:
            with self._scope:
                try:
                    ready_by = trio.current_time() + self.cell.spec.start_timeout
                    actor = self._create()
                    await self._live(actor, ready_by)
                except BaseException as caught:
                    error = root_cause(caught)
                    if error is None:
                        raise  # nothing but Cancelled: the scope's business
                    # Whatever of it was Cancelled ends here, at the scope that cancelled.
            overrun = self._stop_requested and self.became_ready and self._scope.cancelled_caught
            if overrun and not self._killed:
                self.cell.system.report(ShutdownOverrun(self.cell.id, "drain", self.cell.spec.shutdown))
            self._settle_hand(error)
            running_in.set(None)
            if actor is not None and self.became_ready:
                await self._stop(actor)
        finally:
            self.hand.intake.close()
            self._finish(error)

    def _create(self) -> Actor[Any]:
        actor = self.cell.spec.factory()
        if not isinstance(actor, Actor):
            hint = ""
            if isinstance(actor, Coroutine):
                actor.close()
                hint = "; a factory is called and not awaited: what takes time belongs into on_start"
            raise TypeError(f"the factory of {self.cell.id} returned {type(actor).__name__}, not an Actor{hint}")
        actor._cell = self.cell
        self.actor = actor
        return actor

    async def _live(self, actor: Actor[Any], ready_by: float) -> None:
        async with trio.open_nursery() as nursery:
            actor._nursery = self.nursery = nursery
            await self._start(actor, ready_by)
            self.became_ready = True
            self.cell.became_ready()
            self.started.set()
            await self.hand.serve(actor)
            with trio.move_on_after(self.cell.spec.shutdown):
                while self.hand.laters.any_awaited():
                    await self.hand.laters.wait()
            nursery.cancel_scope.cancel()

    async def _start(self, actor: Actor[Any], ready_by: float) -> None:
        with trio.move_on_at(ready_by) as start:
            await actor.on_start()
        # A factory, or an on_start without a checkpoint, holds up the loop: nothing can cut that short.
        if start.cancelled_caught or trio.current_time() > ready_by:
            timeout = self.cell.spec.start_timeout
            raise StartTimeout(f"{self.cell.id}: on_start took longer than start_timeout={timeout} s, factory included")

    # The end.

    def _settle_hand(self, error: BaseException | None) -> None:
        """After the tasks have ended: answer for the messages in hand and the open Laters, in order of arrival."""
        in_hand = self.hand.give_up()
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
