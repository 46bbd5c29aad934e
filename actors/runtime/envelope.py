"""A message on its way, with the slot its answer goes into."""

from collections.abc import Coroutine
from typing import Any

import outcome
import trio

from actors.runtime.errors import ActorError, Reject
from actors.runtime.trace import Trace


class Envelope:
    """One message. An ask's answer bypasses all mailboxes: it reschedules the asking task.

    The slot is used once: whoever settles first wins, and what comes later is told so.
    """

    __slots__ = ("_outcome", "_task", "abandoned", "is_ask", "message", "retried", "sent", "settled", "trace")

    sent: float
    """When; only where the system measures."""

    def __init__(self, message: Any, is_ask: bool, trace: Trace | None) -> None:
        self.message = message
        self.is_ask = is_ask
        self.trace = trace
        self.settled = False
        self.abandoned = False
        self.retried = False
        self._task: trio.lowlevel.Task | None = None  # while it waits: unsettled, and not abandoned
        self._outcome: outcome.Outcome[Any] | None = None

    def wait(self) -> Coroutine[Any, Any, Any]:
        """To be awaited at once: the answer. A checkpoint. Cancelled: the envelope is abandoned, its answer dropped."""
        if self._outcome is None:
            self._task = trio.lowlevel.current_task()
            return trio.lowlevel.wait_task_rescheduled(self._abort)  # noqa: ASYNC105  # awaited by the caller
        # Answered while the asker was still waiting for room in the mailbox, which was its checkpoint.
        return _unwrapped(self._outcome)

    def _abort(self, _raise_cancel: Any) -> trio.lowlevel.Abort:
        self._task = None
        self.abandoned = True
        return trio.lowlevel.Abort.SUCCEEDED

    def answer(self, value: Any) -> bool:
        """Settle with a value; False when it was settled or abandoned before."""
        task = self._task
        if task is None:
            return self._settle(outcome.Value(value))
        self._task = None
        self.settled = True
        trio.lowlevel.reschedule(task, outcome.Value(value))
        return True

    def reject(self, error: object) -> bool:
        return self._settle(outcome.Error(Reject(error)))

    def fail(self, error: ActorError) -> bool:
        return self._settle(outcome.Error(error))

    def _settle(self, result: outcome.Outcome[Any]) -> bool:
        task = self._task
        if task is not None:
            self._task = None
            self.settled = True
            trio.lowlevel.reschedule(task, result)
            return True
        if self.settled:
            return False
        self.settled = True
        if not self.is_ask:
            return True
        if self.abandoned:
            return False
        self._outcome = result
        return True


async def _unwrapped(result: outcome.Outcome[Any]) -> Any:
    return result.unwrap()
