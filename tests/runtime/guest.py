"""A trio loop that a synchronous test drives step by step: for Hypothesis' state machines, whose rules are functions.

trio's guest mode, with this thread as the host: between two steps the loop stands still, and so does virtual time.
"""

from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from typing import Any

import outcome
import trio
from trio.testing import MockClock, wait_all_tasks_blocked


class Guest:
    def __init__(self) -> None:
        self.clock = MockClock()
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._asked: Callable[[], Awaitable[Any]] | None = None
        self._answer: outcome.Outcome[Any] | None = None
        self._ended: outcome.Outcome[None] | None = None
        self._wake: trio.Event | None = None
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._calls.put,
            done_callback=self._done,
            clock=self.clock,
            restrict_keyboard_interrupt_to_checkpoints=True,
        )
        self._pump(lambda: self._wake is not None)

    def do(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Await `fn(*args)` in the loop, let all that it has set off come to rest, and return (or raise) its result."""
        self._answer = None
        self._asked = lambda: fn(*args)
        assert self._wake is not None
        self._token.run_sync_soon(self._wake.set)
        self._pump(lambda: self._answer is not None)
        assert self._answer is not None
        return self._answer.unwrap()

    def advance(self, seconds: float) -> None:
        """Let time pass, and everything happen at its own moment."""

        async def pass_by() -> None:
            end = trio.current_time() + seconds
            while True:
                await wait_all_tasks_blocked()
                next = trio.lowlevel.current_statistics().seconds_to_next_deadline
                left = end - trio.current_time()
                if next > left:
                    self.clock.jump(max(0.0, left))
                    return
                self.clock.jump(max(0.0, next))

        self.do(pass_by)

    def close(self) -> None:
        """Raises what the loop's tasks raised."""
        self._asked = None
        assert self._wake is not None
        self._token.run_sync_soon(self._wake.set)
        self._pump(lambda: self._ended is not None)
        assert self._ended is not None
        self._ended.unwrap()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        while True:
            self._wake = trio.Event()
            await self._wake.wait()
            if self._asked is None:
                return
            answer = await outcome.acapture(self._asked)
            await wait_all_tasks_blocked()
            self._answer = answer

    def _done(self, ended: outcome.Outcome[None]) -> None:
        self._ended = ended

    def _pump(self, until: Callable[[], bool]) -> None:
        while not until():
            if self._ended is not None:
                self._ended.unwrap()
            self._calls.get(timeout=10.0)()
