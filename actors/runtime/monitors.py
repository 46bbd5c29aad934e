"""Watching for the end of an incarnation. OTP: `monitor` and `'DOWN'`."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import trio

from actors.runtime.events import Exit, Next


@dataclass(frozen=True, slots=True)
class Down:
    """An incarnation has ended. `next` says what its supervisor does: `restart`, `end`, `give_up`, `escalate`."""

    id: str
    reason: Exit
    next: Next


class Monitor:
    """Gives exactly one `Down`: `await monitor`, any number of times and from any task, gives the same one.

    An async iterator too: one Down, then the end. Dropping it is all it takes to end the watch.
    """

    __slots__ = ("__weakref__", "_down", "_event", "_given")

    def __init__(self, down: Down | None) -> None:
        self._down = down
        self._event = trio.Event()
        self._given = False

    def __await__(self) -> Generator[Any, Any, Down]:
        return self.wait().__await__()

    async def wait(self) -> Down:
        """A checkpoint. Cancelled: nothing is lost, the Down can be waited for again."""
        if self._down is None:
            await self._event.wait()
        else:
            await trio.lowlevel.checkpoint()
        assert self._down is not None
        return self._down

    def __aiter__(self) -> Monitor:
        return self

    async def __anext__(self) -> Down:
        if self._given:
            raise StopAsyncIteration
        down = await self.wait()
        self._given = True
        return down

    def _set(self, down: Down) -> None:
        self._down = down
        self._event.set()


class Monitors:
    """Who watches one node of the tree."""

    def __init__(self, id: str) -> None:
        self._id = id
        self._down: Down | None = None
        self._watching: WeakSet[Monitor] | None = None  # most are never watched, and it is large

    def open(self) -> Monitor:
        """Watch the incarnation there is or the first to come; when the last one is down, that is its Down."""
        monitor = Monitor(self._down)
        if self._down is None:
            if self._watching is None:
                self._watching = WeakSet()
            self._watching.add(monitor)
        return monitor

    def up(self) -> None:
        """An incarnation begins."""
        self._down = None

    def down(self, reason: Exit, next: Next) -> None:
        """It has ended, and it is decided what comes next. Only the first call for an incarnation counts;
        one that has nothing to come is remembered as such."""
        if self._down is None:
            self._down = Down(self._id, reason, next)
            for monitor in list(self._watching or ()):
                monitor._set(self._down)
            self._watching = None
        elif next == "end" and self._down.next == "restart":
            self._down = Down(self._id, self._down.reason, next)
