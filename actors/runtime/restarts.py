"""What a supervisor keeps of one incarnation of its own, and of each restart under way."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from actors.runtime.events import Exit

if TYPE_CHECKING:
    from actors.runtime.supervision import Node


class Run:
    """One incarnation of a supervisor."""

    nursery: trio.Nursery

    def __init__(self) -> None:
        self.started = trio.Event()
        self.exited = trio.Event()
        self.exit: Exit | None = None
        self.reported = False
        self.failed = False
        """It gives up, or a child of it did not start: the others are stopped for that."""
        self.final = False
        self.scope = trio.CancelScope()
        # Unbounded, but holds at most one exit of each incarnation. The number is the incarnation's.
        self.exits, self.receive = trio.open_memory_channel[tuple["Node", int, Exit]](math.inf)


class Restart:
    """Some children, in start order, on their way down and up again."""

    def __init__(self, nodes: Sequence[Node], due: float) -> None:
        self.nodes = nodes
        self.pending = deque(nodes)
        """Those that are still to be started: whatever they did before is superseded."""
        self.due = due
        self.scope = trio.CancelScope()
        self.done = trio.Event()
