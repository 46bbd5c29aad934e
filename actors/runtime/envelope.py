"""A message on its way, with the slot its answer goes into."""

from typing import Any

import outcome
import trio

from actors.runtime.errors import ActorError, Reject


class Envelope:
    """One message. An ask's answer bypasses all mailboxes: it reschedules the asking task.

    The slot is used once: whoever settles first wins, and what comes later is told so.
    """

    __slots__ = ("_outcome", "_task", "abandoned", "deadline", "is_ask", "message", "retried", "settled")

    def __init__(self, message: Any, is_ask: bool, deadline: float) -> None:
        self.message = message
        self.is_ask = is_ask
        self.deadline = deadline
        self.settled = False
        self.abandoned = False
        self.retried = False
        self._task: trio.lowlevel.Task | None = None
        self._outcome: outcome.Outcome[Any] | None = None

    async def wait(self) -> Any:
        """Wait for the answer. A checkpoint. Cancelled: the envelope is abandoned, its answer dropped."""
        if self._outcome is None:
            self._task = trio.lowlevel.current_task()
            return await trio.lowlevel.wait_task_rescheduled(self._abort)
        # Answered while the asker was still waiting for room in the mailbox, which was its checkpoint.
        return self._outcome.unwrap()

    def _abort(self, _raise_cancel: Any) -> trio.lowlevel.Abort:
        self._task = None
        self.abandoned = True
        return trio.lowlevel.Abort.SUCCEEDED

    def answer(self, value: Any) -> bool:
        """Settle with a value; False when it was settled or abandoned before."""
        return self._settle(outcome.Value(value))

    def reject(self, error: object) -> bool:
        return self._settle(outcome.Error(Reject(error)))

    def fail(self, error: ActorError) -> bool:
        return self._settle(outcome.Error(error))

    def _settle(self, result: outcome.Outcome[Any]) -> bool:
        if self.settled:
            return False
        self.settled = True
        if not self.is_ask:
            return True
        if self.abandoned:
            return False
        task = self._task
        if task is None:
            self._outcome = result
        else:
            self._task = None
            trio.lowlevel.reschedule(task, result)
        return True
