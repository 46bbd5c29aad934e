"""Asks that are handled in the asker's own turn.

An actor whose handler is a plain function (`def handle`, `def handle_batch`) cannot wait for anything, so nothing can
come between the beginning and the end of a message. While such an actor is idle, with nothing queued and nothing in
hand, an ask needs no switch to the actor's task and back: the asker calls the handler itself. What the outside sees
is the same: one message at a time, in the order of arrival, and an exception crashes the actor, not the asker.

The lineage: Liedtke's direct process switch in L4 (SOSP '93), and .NET's synchronously completed ValueTask.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import iscoroutinefunction
from types import CoroutineType
from typing import TYPE_CHECKING, Any

import trio

from actors.runtime.envelope import Envelope
from actors.runtime.errors import Reject
from actors.runtime.later import Later
from actors.runtime.trace import running_in

if TYPE_CHECKING:
    from actors.runtime.actor import Actor
    from actors.runtime.hand import Hand

# Of one asker in a row: before it gets the answer to the last of so many, other tasks run.
ASKS_A_TURN = 16
# To look at the clock twice costs a quarter of such an ask. So one of these many is measured, and stands for all.
MEASURED_EVERY = 16


def is_plain(actor: Actor[Any]) -> bool:
    """Whether *actor*'s handler is a plain function."""
    return not iscoroutinefunction(actor.handle if actor.handle_batch is None else actor.handle_batch)


class AtOnce:
    """Calls the handler of one incarnation for its askers. `error`: what the handler raised; the incarnation ends
    with it, and the message is in hand."""

    def __init__(self, hand: Hand, actor: Actor[Any]) -> None:
        self._hand = hand
        self._cell = hand.cell
        self._now = hand.cell.system.now
        self._measured = hand.cell.measured
        self._handle: Callable[[Any], Any] = actor.handle if actor.handle_batch is None else self._of_one(actor)
        self._asker = self._in_a_row = self._unmeasured = 0
        self.error: Exception | None = None
        self.running = False

    def turn_is_over(self) -> bool:
        """Whether the running task, which asks, has had its turn with this ask."""
        asker = id(trio.lowlevel.current_task())
        self._in_a_row = self._in_a_row + 1 if asker == self._asker else 1
        self._asker = asker
        if self._in_a_row < ASKS_A_TURN:
            return False
        self._in_a_row = 0
        return True

    def ask(self, message: Any) -> Any:
        """The answer; an `Envelope` to wait for where it comes later, or the handler has just crashed.

        Raises `Reject` as the handler did.
        """
        cell, measured = self._cell, self._measured
        since: float | None = None
        if measured is not None:
            self._unmeasured += 1
            if self._unmeasured == MEASURED_EVERY:
                since = self._now()
        self.running = True
        try:
            result = self._handle(message)
        except Reject as refusal:
            result = refusal
        except Exception as error:
            return self._crash(message, error)
        finally:
            self.running = False
        if isinstance(result, (Later, CoroutineType)):
            return self._later(message, result)
        cell.handled += 1
        if since is not None and measured is not None:
            self._unmeasured = 0
            measured.at_once(self._now() - since, MEASURED_EVERY)
        if isinstance(result, Reject):
            raise result
        return result

    def _of_one(self, actor: Actor[Any]) -> Callable[[Any], Any]:
        handle_batch: Any = actor.handle_batch

        def handle(message: Any) -> Any:
            results = handle_batch([message])
            if type(results) is CoroutineType:
                return results
            if len(results) != 1:
                raise TypeError(f"{self._cell.id}: handle_batch returned {len(results)} results for 1 messages")
            result = results[0]
            if isinstance(result, Reject):
                raise result
            return result

        return handle

    def _later(self, message: Any, result: Any) -> Envelope:
        if isinstance(result, CoroutineType):
            result.close()
            return self._crash(message, awaitable(self._cell.id))
        envelope = Envelope(message, True, running_in.get())
        envelope.sent = since = self._now()
        self._hand.answer_later(envelope, result, since)
        return envelope

    def _crash(self, message: Any, error: Exception) -> Envelope:
        self.error = error
        envelope = Envelope(message, True, running_in.get())
        envelope.sent = self._now()
        self._hand.crash_with(envelope)
        return envelope


def awaitable(id: str) -> TypeError:
    return TypeError(f"{id}: a handler that is a plain function returned a coroutine; define it with `async def`")
