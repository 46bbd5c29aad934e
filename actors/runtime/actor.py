"""The base class of every actor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, TypeVarTuple, Unpack

import trio

from actors.runtime.errors import ActorStopped, MailboxFull
from actors.runtime.later import Later
from actors.runtime.trace import Trace
from actors.runtime.waits import serving

if TYPE_CHECKING:
    from actors.runtime.cell import Cell
    from actors.runtime.dynamic import DynamicRef
    from actors.runtime.ref import Ref
    from actors.runtime.system import System

M = TypeVar("M")
Ts = TypeVarTuple("Ts")


class Actor(Generic[M]):
    """One incarnation of a worker. The supervisor makes a new one, by the child's factory, after each exit.

    Override `handle` or `handle_batch`, and `on_start`/`on_stop` where there is something to open or close.
    Subclasses need not call `super().__init__()`; what the base class offers works from `on_start` on.
    """

    batch_limit: int = 256
    """The most messages that `handle_batch` is given at once."""

    _cell: Cell
    _nursery: trio.Nursery

    async def on_start(self) -> None:
        """Return when ready; raise for a start failure. Bounded by the child's `start_timeout`."""

    def handle(self, message: M) -> Any:
        """Handle one message. The return value answers an ask (a `Later`: it will be answered later).

        Raise `Reject(error)` to refuse this message; any other exception crashes the actor.

        Define it with `async def` where it awaits something. A plain `def` waits for nothing, and an ask that finds
        the actor idle is then handled at once, without a switch of tasks: several times as fast.
        """
        raise NotImplementedError(f"{type(self).__name__} has no handler for {type(message).__name__}")

    handle_batch: Callable[[list[M]], Any] | None = None
    """Optional, instead of `handle`: messages in, one result a message out, in the same order.
    A result may be a value, a `Reject` or a `Later`. An async method, or a plain one that waits for nothing."""

    async def on_stop(self) -> None:
        """Called once after every incarnation that became ready, crashed or not, within the shutdown budget.

        Spawned tasks are gone by then; the next `on_start` begins only after it returned.
        """

    def describe(self) -> dict[str, Any]:
        """What an operator should see of this actor, ready for JSON: `detail` in the snapshot. It must not raise."""
        return {}

    @property
    def ref(self) -> Ref[M]:
        """This actor's own reference, stable across restarts."""
        return self._cell.ref

    @property
    def system(self) -> System:
        """The system this actor runs in: for control-plane actors that show or steer the tree."""
        return self._cell.system

    def lookup(self, id: str) -> Ref[Any]:
        """The reference of any actor or pool of the tree, valid at once. Raises LookupError for an unknown id."""
        return self._cell.system.ref(id)

    def dynamic(self, id: str) -> DynamicRef:
        """The handle of a dynamic supervisor of the tree. Raises LookupError for any other id."""
        return self._cell.system.dynamic(id)

    def clock(self) -> float:
        """The system's clock, in seconds: trio's, so tests run in virtual time."""
        return trio.current_time()

    def traces(self) -> list[Trace | None]:
        """The traces of the messages in hand, for `handle_batch`: one a message, in the same order.

        `handle` runs in the trace of its message, `handle_batch` in none: `with use_trace(trace):` around what
        it asks, tells or spawns for one message.
        """
        return self._cell.traces()

    def later(self) -> Later:
        """An answer to give later: return it from the handler, and `answer` or `fail` it once."""
        return Later()

    def spawn(self, fn: Callable[[Unpack[Ts]], Awaitable[Any]], *args: *Ts) -> None:
        """Run `fn(*args)` as a task of this incarnation: it dies with it, and an exception crashes it."""
        held_up = serving.set(None)  # the task copies this context: what it awaits holds up no handler
        self._nursery.start_soon(fn, *args)
        serving.reset(held_up)

    def timer(self, delay: float, message: M, every: float | None = None) -> Timer:
        """Tell *message* to this actor after *delay* seconds, then each *every* seconds if given.

        It dies with the incarnation. A tick that finds the mailbox full is lost, as its policy says.
        """
        timer = Timer()
        self.spawn(timer._run, self.ref, delay, message, every)
        return timer

    def stop(self) -> None:
        """End this incarnation normally after the message in hand."""
        self._cell.stop_self()


class Timer:
    """A pending tell to oneself."""

    __slots__ = ("_scope",)

    def __init__(self) -> None:
        self._scope = trio.CancelScope()

    def cancel(self) -> None:
        """No more ticks; one that is already in the mailbox stays there."""
        self._scope.cancel()

    async def _run(self, ref: Ref[M], delay: float, message: M, every: float | None) -> None:
        with self._scope:
            await trio.sleep(delay)
            while True:
                try:
                    await ref.tell(message)
                except (ActorStopped, MailboxFull):
                    pass
                if every is None:
                    return
                await trio.sleep(every)
