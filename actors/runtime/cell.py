"""The cell of one child: what outlives its incarnations. It owns the mailbox and answers for every message in it.

`incarnation.py` runs one life of the actor; `supervision.py` decides whether there is another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import trio

from actors.runtime.envelope import Envelope
from actors.runtime.errors import ActorCrashed, InjectedCrash
from actors.runtime.events import ActorExited, ActorReady, ActorTakenDown, Exit, Next
from actors.runtime.inbox import Inbox
from actors.runtime.incarnation import Incarnation
from actors.runtime.monitors import Monitors
from actors.runtime.queue import MessageQueue
from actors.runtime.ref import Ending, Ref
from actors.runtime.spec import Child
from actors.runtime.trace import Trace
from actors.runtime.waits import held_up

if TYPE_CHECKING:
    from actors.runtime.supervision import SupervisorNode
    from actors.runtime.system import System

State = Literal["waiting", "starting", "ready", "backoff", "stopping", "stopped"]


class Cell(Inbox):
    """One child of the tree, whatever incarnation it is in."""

    def __init__(self, spec: Child, parent: SupervisorNode, system: System) -> None:
        super().__init__(spec, system)
        self.parent = parent
        self.ref: Ref[Any] = Ref(self)
        self.retry: list[Envelope] = []
        """In hand at the last crash, each to be given once more, alone."""
        self.state: State = "waiting"
        self.state_since = trio.current_time()
        self.incarnation = 0
        self.restarts = 0
        self.consecutive_failures = 0
        self.handled = 0
        self.ready_at: float | None = None
        self.last_error: BaseException | None = None
        self.closed = False
        self.ended = False
        """Asked to end for good, by its reference: no restart, not even with its group."""
        self.monitors = Monitors(spec.id)
        self.crash_next = False
        self._current: Incarnation | None = None

    # Running: called by the supervisor alone.

    def run(self, nursery: trio.Nursery) -> Incarnation:
        """Begin the next incarnation in *nursery*; `Incarnation.wait_ready` tells how its start went."""
        self._refuses_asks = False
        self.incarnation += 1
        self.ready_at = None
        self.handled = 0
        self.set_state("starting")
        self.monitors.up()
        self._current = Incarnation(self)
        nursery.start_soon(self._current.run)
        return self._current

    async def start(self, nursery: trio.Nursery) -> Exit | None:
        """Run an incarnation until it is ready (None) or its start failed. Cancelled: it goes on, for `stop`."""
        current = self.run(nursery)
        await current.started.wait()
        return None if current.became_ready or self.ended else current.exit

    def abandon_start(self) -> None:
        """Nobody waits any more for the start under way: it is undone."""
        self.ended = True
        self.queue.close()
        assert self._current is not None
        self._current.request_stop(drain=True)

    async def stop(self, *, final: bool) -> None:
        """Stop the incarnation, if there is one, within its budget and the system's deadline.

        *final*: handle what is queued, then close the mailbox; else keep the queue for the next incarnation.
        Cancelled: the stop goes on, and is waited for by the next one.
        """
        current = self._current
        if current is not None and not current.exited.is_set():
            self.set_state("stopping")
            current.request_stop(drain=final)
            await current.exited.wait()
        if current is not None and current.exit is not None:  # by itself, and nobody came to decide about it
            self.report_exit(current.exit, *self.parent.stop_leads_to(self, final=final))
        if final:
            self.close()
        elif not self.closed:
            if current is not None and current.exit is not None:
                self.monitors.down(current.exit, "restart")
            self.set_state("waiting")

    async def end(self, how: Ending) -> None:
        """End for good, as asked for through the reference. Cancelled: it goes on.

        Raises AskCycle in a handler that would wait for its own end.
        """
        if (caller := held_up()) is not None:
            await self.refuse_cycle(caller)
        self.ended = True
        current = self._current
        if current is None or current.exited.is_set():
            self.close()  # there is nobody to handle what is queued, and nobody comes any more
            await trio.lowlevel.checkpoint()
            return
        self.set_state("stopping")
        self.queue.close()
        if how == "kill":
            current.kill()
        else:
            current.request_stop(drain=how == "drain")
        await current.exited.wait()

    @property
    def startable(self) -> bool:
        """As in OTP, a `transient` child that has ended normally starts again with its group."""
        return not self.closed or (self.spec.restart == "transient" and not self.ended)

    def reopen(self) -> bool:
        """Make it ready to be started, if it may be."""
        if self.closed and self.startable:
            self.closed = False
            self.queue = MessageQueue(self.spec.mailbox, self._lose)
        return not self.closed

    def end_by(self, end: float) -> None:
        """The system stops: whatever incarnation there is must be gone at *end* (absolute)."""
        if self._current is not None:
            self._current.end_by(end)

    def stop_self(self) -> None:
        if self._current is not None:
            self._current.request_end()

    def enter_backoff(self, until: float) -> None:
        """Waiting for the next start, not before *until*: asks of a `fail` child are refused at once.

        A wait imposed before holds: a sibling's failure must not cut it short.
        """
        if self.closed:
            return
        self.backoff_until = max(self.backoff_until, until)
        self._refuses_asks = self.spec.on_crash == "fail" and self.backoff_until > trio.current_time()
        self.set_state("backoff")

    def close(self) -> None:
        """End for good: every message that is still here is answered for."""
        if self.closed:
            return
        self.closed = True
        self._refuses_asks = False
        self.set_state("stopped")
        self.queue.close()
        while self.retry:
            self._fail_crashed(self.retry.pop(0))
        for envelope in self.queue.take_rest():
            self.system.dead_letters.record(self.id, envelope.message, "stopped")
            envelope.fail(self._stopped())
        exit = self._current.exit if self._current is not None else None
        self.monitors.down(exit or Exit("stopped"), "end")
        self.parent.child_closed(self)

    def count_failure(self, now: float) -> float:
        """Count a failure of the last incarnation; returns the delay before the next one, in seconds."""
        ready_for = None if self.ready_at is None else now - self.ready_at
        backoff = self.spec.backoff
        self.consecutive_failures = backoff.consecutive(self.consecutive_failures, ready_for, self.handled)
        return backoff.delay(self.consecutive_failures, self.system.rng.random())

    # Reported by the incarnation.

    def became_ready(self) -> None:
        self.ready_at = trio.current_time()
        self.set_state("ready")
        self.system.report(ActorReady(self.id, self.incarnation))

    def crashed(self, in_hand: list[Envelope], error: BaseException) -> None:
        """Decide about the messages that were in hand."""
        self.last_error = error
        again: list[Envelope] = []
        for envelope in in_hand:
            if envelope.settled:
                continue
            if self.spec.on_crash == "retry_once" and not envelope.retried:
                # A crash that was asked for says nothing about the message: its one retry stays.
                envelope.retried = not isinstance(error, InjectedCrash)
                again.append(envelope)
            else:
                self._fail_crashed(envelope)
        self.retry[:0] = again

    def _fail_crashed(self, envelope: Envelope) -> None:
        """It was in hand at a crash, and is not given again."""
        if not envelope.is_ask:
            self.system.dead_letters.record(self.id, envelope.message, "crashed")
        error = self.last_error
        failure = ActorCrashed(f"{self.id} crashed with the message in hand; it may have been handled: {error!r}")
        failure.__cause__ = error
        envelope.fail(failure)

    def exited(self, exit: Exit) -> None:
        """The incarnation ended by itself."""
        self.parent.child_exited(self, exit)

    def stopped(self, exit: Exit, error: BaseException | None, *, final: bool) -> None:
        """The incarnation ended as it was asked to; its supervisor has nothing to decide. *error*: on the way."""
        delay, next = self.parent.stop_leads_to(self, final=final or self.ended)
        if self.ended or error is not None:
            self.report_exit(exit if error is None else Exit("crashed", error), delay, next)
        else:
            self.report_exit(exit, delay, next, ActorTakenDown)
        if self.ended:
            self.close()

    def report_exit(
        self,
        exit: Exit,
        delay: float,
        next: Next,
        event: type[ActorExited] | type[ActorTakenDown] = ActorExited,
    ) -> None:
        """Once an incarnation, whoever comes first."""
        if self._current is not None and not self._current.reported:
            self._current.reported = True
            self.system.report_exit(event(self.id, exit, self.restarts, delay, next))

    def answers_later(self, envelope: Envelope) -> bool:
        return self._current is not None and envelope in self._current.hand.laters

    def traces(self) -> list[Trace | None]:
        return self._current.hand.traces() if self._current is not None else []

    def load(self) -> int:
        """How many messages are queued or in hand."""
        return self.queue.depth() + (self._current.hand.load() if self._current is not None else 0)

    def set_state(self, state: State) -> None:
        self.state = state
        self.state_since = trio.current_time()

    def snapshot(self) -> dict[str, Any]:
        now = trio.current_time()
        actor = self._current.actor if self._current is not None else None
        in_hand_since = self._current.hand.since() if self._current is not None else None
        return {
            "id": self.id,
            "kind": "actor",
            "state": self.state,
            "state_age": now - self.state_since,
            "incarnation": self.incarnation,
            "restarts": self.restarts,
            "restart": self.spec.restart,
            "mailbox_depth": 0 if self.closed else self.queue.depth(),
            "mailbox_capacity": self.queue.capacity,
            "in_hand_age": None if in_hand_since is None else self.system.now() - in_hand_since,
            "last_error": None if self.last_error is None else f"{type(self.last_error).__name__}: {self.last_error}",
            "detail": {} if actor is None else actor.describe(),
        }
