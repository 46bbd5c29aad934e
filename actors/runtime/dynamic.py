"""A running dynamic supervisor: children that come and go at run time. OTP: `simple_one_for_one`; Elixir:
`DynamicSupervisor`, here with a restart budget for each child."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from actors.runtime.cell import Cell
from actors.runtime.errors import ActorStopped, StartFailed, TooManyChildren
from actors.runtime.events import Exit
from actors.runtime.intensity import Intensity
from actors.runtime.ref import Ending, Ref
from actors.runtime.restarts import Run
from actors.runtime.spec import DynamicSupervisor
from actors.runtime.supervision import Build, Node, SupervisorNode

if TYPE_CHECKING:
    from actors.runtime.system import System


class DynamicNode(SupervisorNode):
    kind = "dynamic_supervisor"

    def __init__(self, declared: DynamicSupervisor, parent: SupervisorNode, system: System, build: Build) -> None:
        super().__init__(declared.supervisor(), parent, system, build)
        self.declared = declared
        self.handle = DynamicRef(self)
        self._budgets: dict[Node, Intensity] = {}

    async def start_child(self, id: str, args: tuple[Any, ...]) -> Ref[Any]:
        run = self._run
        if self.state != "ready" or run is None:
            await trio.lowlevel.checkpoint()
            raise ActorStopped(f"{self.id} is {self.state}; it starts no children")
        if len(self.children) >= self.declared.max_children:
            await trio.lowlevel.checkpoint()
            raise TooManyChildren(f"{self.id} has {len(self.children)} children, as many as it may have")
        cell = Cell(self.declared.declare(id, args), self, self.system)
        self.system.register(cell)
        self.children.append(cell)
        self._budgets[cell] = Intensity(self.declared.intensity, self.declared.period)
        try:
            failure = await cell.start(run.nursery)
        except BaseException:
            cell.abandon_start()
            raise
        if cell.closed or failure is not None:
            exit = failure or Exit("stopped")
            if not cell.closed:
                self._report(cell, exit, 0.0, "end")
                cell.close()
            raise StartFailed(f"{id} did not start: {exit.error or exit.kind}") from exit.error
        return cell.ref

    async def stop_child(self, id: str) -> None:
        cell = next((child for child in self.children if child.id == id), None)
        if not isinstance(cell, Cell):
            raise LookupError(f"{self.id} has no child {id!r}")
        await cell.end("drain")

    def child_closed(self, child: Cell) -> None:
        if child in self.children:
            self.children.remove(child)
            self._budgets.pop(child, None)
            self.system.unregister(child.id)

    def _allows_restart(self, child: Node, now: float) -> bool:
        if self.declared.budget == "shared":
            return super()._allows_restart(child, now)
        return self._budgets[child].record(now)

    def _too_often(self, child: Node, exit: Exit) -> Exit | None:
        if self.declared.budget == "shared":
            return super()._too_often(child, exit)
        self._report(child, exit, 0.0, "give_up")
        child.close()
        return None

    async def _take_down_with(self, child: Node) -> list[Node]:
        return [child]

    async def _stop_children(self, run: Run) -> None:
        """They were started for one life of this supervisor: whatever comes next begins with none."""
        run.final = True
        await super()._stop_children(run)

    def snapshot(self) -> dict[str, Any]:
        return super().snapshot() | {"max_children": self.declared.max_children, "budget": self.declared.budget}


class DynamicRef(Ref[Any]):
    """The handle of a dynamic supervisor. It takes no messages: ask and tell raise TypeError."""

    __slots__ = ("_node",)

    def __init__(self, node: DynamicNode) -> None:
        super().__init__(_NoPort(node))
        self._node = node

    def __repr__(self) -> str:
        return f"<DynamicRef {self.id}>"

    async def start_child(self, id: str, *args: Any) -> Ref[Any]:
        """Start a child, its factory called with *args*; returns its reference when it is ready.

        Raises `TooManyChildren`, `StartFailed` (nothing of it is left then), ValueError for an id that the
        tree has, `ActorStopped` when the supervisor itself is down. Cancelled: the start is undone.
        """
        return await self._node.start_child(id, args)

    async def stop_child(self, id: str) -> None:
        """Stop a child for good: what is queued is handled first, within its shutdown budget.

        Raises LookupError for an id that is none of its children's. Cancelled: the stop goes on.
        """
        await self._node.stop_child(id)

    def children(self) -> list[str]:
        """The ids of those there are, in the order of their starts."""
        return [child.id for child in self._node.children]


class _NoPort:
    """Where messages to a supervisor end."""

    def __init__(self, node: DynamicNode) -> None:
        self.id = node.id
        self.monitors = node.monitors
        self._node = node

    async def ask(self, message: Any) -> Any:
        raise self._wrong(message)

    def ask_now(self, message: Any) -> Any:
        raise self._wrong(message)

    async def tell(self, message: Any) -> None:
        raise self._wrong(message)

    def try_tell(self, message: Any) -> bool:
        raise self._wrong(message)

    async def end(self, how: Ending) -> None:
        """End all children, the last one first, and the supervisor."""
        for child in reversed(list(self._node.children)):
            if isinstance(child, Cell):
                await child.end(how)
        await self._node.stop(final=True)

    def _wrong(self, message: Any) -> TypeError:
        return TypeError(f"{self.id} is a supervisor and takes no {type(message).__name__}")
