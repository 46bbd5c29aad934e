"""A running tree: opened, looked up, observed, and stopped in order."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import trio

from actors.runtime.cell import Cell
from actors.runtime.dead_letters import DeadLetters
from actors.runtime.dynamic import DynamicNode, DynamicRef
from actors.runtime.errors import SupervisorGaveUp
from actors.runtime.events import ActorExited, ActorTakenDown, Event, Observer, log_event
from actors.runtime.measures import ActorMetrics
from actors.runtime.nodes import build
from actors.runtime.pool import PoolNode
from actors.runtime.ref import Ref
from actors.runtime.spec import Supervisor
from actors.runtime.supervision import Node, SupervisorNode
from actors.runtime.validation import doubts, validate

_log = logging.getLogger("actors.runtime")


class System:
    """What `open_system` yields. Everything here is immediate; nothing waits."""

    def __init__(self, tree: Supervisor, rng: Random, observer: Observer, metrics: bool) -> None:
        self.rng = rng
        self.now = _stopwatch(trio.lowlevel.current_clock())
        """Seconds since some moment: for differences alone, at a quarter of the price of `trio.current_time`."""
        self.clock = self.now if metrics else None
        self.dead_letters = DeadLetters()
        self.failure: BaseException | None = None
        self.stop_by = math.inf
        """When everything must be gone (absolute), once the system stops."""
        self._observer = observer
        self._body: trio.CancelScope | None = None
        self._nodes: dict[str, Node] = {}
        self.root = SupervisorNode(tree, None, self, build)
        self.register(self.root)

    def ref(self, id: str) -> Ref[Any]:
        """The stable reference of an actor or a pool. Raises LookupError for an id that is not in the tree.

        For a dynamic supervisor it is the handle that `dynamic` gives.
        """
        match self._nodes.get(id):
            case Cell() | PoolNode() as node:
                return node.ref
            case DynamicNode(handle=handle):
                return handle
        raise self._unknown("actor", id)

    def dynamic(self, id: str) -> DynamicRef:
        """The handle of a dynamic supervisor. Raises LookupError for any other id."""
        node = self._nodes.get(id)
        if isinstance(node, DynamicNode):
            return node.handle
        raise self._unknown("dynamic supervisor", id)

    def crash(self, id: str) -> None:
        """Crash that actor on its next message (game days, tests). Raises LookupError for an unknown id."""
        node = self._nodes.get(id)
        if not isinstance(node, Cell):
            raise self._unknown("actor", id)
        node.crash_next = True
        node.prompt = False  # its next message goes to its own task

    def snapshot(self) -> dict[str, Any]:
        """The tree as nested JSON-ready dicts.

        Every node: `id`, `kind`, `state` (waiting, starting, ready, backoff, stopping, stopped), `state_age`
        in seconds, `incarnation`, `restarts`, `restart`, `last_error`. Actors: `mailbox_depth`,
        `mailbox_capacity`, `in_hand_age` (seconds, None when idle). Supervisors: `strategy`, `intensity`,
        `period`, `children`. Dynamic supervisors: `max_children`, `budget` too; pools: `route`, `size`.
        """
        return self.root.snapshot()

    def metrics(self) -> dict[str, ActorMetrics]:
        """By the ids of all actors that there are; empty unless `open_system(..., metrics=True)` was asked for."""
        cells = [node for node in self._nodes.values() if isinstance(node, Cell)]
        return {cell.id: cell.measured.read() for cell in cells if cell.measured is not None}

    def report(self, event: Event) -> None:
        self._observer(event)

    def report_exit(self, event: ActorExited | ActorTakenDown) -> None:
        """The stop of the system is one thing, and no news of each actor that it stops."""
        if isinstance(event, ActorExited) or self.stop_by == math.inf:
            self.report(event)

    def fail(self, error: BaseException) -> None:
        """End the system with *error*: cancels the body of `open_system`, which stops the tree in order."""
        if self.failure is None:
            self.failure = error
        if self._body is not None:
            self._body.cancel()

    async def _stop(self, deadline: float) -> None:
        """Stop the tree in order within *deadline* seconds, also whatever is stopping or restarting already."""
        self.stop_by = trio.current_time() + deadline
        self.dead_letters.quiet()
        for node in self._nodes.values():
            if isinstance(node, Cell):
                node.end_by(self.stop_by)
        await self.root.stop(final=True)

    # Called by the nodes.

    def register(self, node: Node) -> None:
        """Raises ValueError for an id that the tree has: ids are unique in all of it."""
        if node.id in self._nodes:
            raise ValueError(f"there is a node {node.id!r} in the tree; ids are unique in the whole tree")
        self._nodes[node.id] = node

    def unregister(self, id: str) -> None:
        del self._nodes[id]

    def _unknown(self, kind: str, id: str) -> LookupError:
        wanted = DynamicNode if kind == "dynamic supervisor" else Cell | PoolNode
        known = ", ".join(sorted(id for id, node in self._nodes.items() if isinstance(node, wanted)))
        return LookupError(f"no {kind} {id!r} in the tree; there are: {known}")


@asynccontextmanager
async def open_system(
    tree: Supervisor,
    *,
    shutdown_deadline: float = 25.0,
    rng: Random | None = None,
    observer: Observer = log_event,
    metrics: bool = False,
) -> AsyncIterator[System]:
    """Start *tree* and yield its `System` when every child is ready; stop it in reverse order at the end.

    Args:
        shutdown_deadline: seconds for the whole stop, whatever the children's budgets add up to.
        rng: where backoff takes its jitter from.
        observer: is called with every runtime event, inline; it must not block or raise.
        metrics: keep the histograms that `System.metrics` reads.

    Raises ValueError for a tree that cannot work, before anything runs; warns in the log about numbers that do not
    go together (`actors.runtime.validation`). `SupervisorGaveUp`, bare, when a
    first start fails or the root's intensity is exceeded (the body is cancelled then). What the body raises
    comes out bare as well. Cancelled: the tree is stopped in order first, within the deadline.
    """
    validate(tree, shutdown_deadline)
    for doubt in doubts(tree, shutdown_deadline):
        _log.warning("%s", doubt)
    system = System(tree, rng or Random(), observer, metrics)
    error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            with trio.CancelScope() as body:
                system._body = body
                system.dead_letters.log_in(nursery)
                failure = await system.root.start(nursery)
                if failure is not None:
                    raise failure.error or SupervisorGaveUp(f"{tree.id} was stopped while it started")
                yield system
        except BaseException as caught:
            error = caught  # kept out of the nursery, which would wrap it in a group
        with trio.CancelScope(shield=True):  # bounded: every stop below is, by its budget and this deadline
            await system._stop(shutdown_deadline)
    # A failure of the tree explains a body that fell over it.
    if system.failure is not None:
        raise system.failure from system.failure.__cause__
    if error is not None:
        raise error


def _stopwatch(clock: trio.abc.Clock) -> Callable[[], float]:
    """What *clock* counts. trio's own is `perf_counter` and a constant, which no difference has; any other is asked."""
    return time.perf_counter if type(clock).__name__ == "SystemClock" else clock.current_time
