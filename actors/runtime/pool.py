"""A running pool: a supervisor of equal workers, and one address for all of them."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import trio

from actors.runtime.cell import Cell
from actors.runtime.ref import Ending, Ref
from actors.runtime.spec import Pool
from actors.runtime.supervision import Build, SupervisorNode
from actors.runtime.waits import held_up

if TYPE_CHECKING:
    from actors.runtime.system import System


class PoolNode(SupervisorNode):
    kind = "pool"

    def __init__(self, pool: Pool, parent: SupervisorNode | None, system: System, build: Build) -> None:
        super().__init__(pool.supervisor(), parent, system, build)
        self.pool = pool
        self.ref: Ref[Any] = Ref(self)
        self.workers = [child for child in self.children if isinstance(child, Cell)]
        self._next = 0

    # What a reference leads to. The coroutines are the worker's own: a pool adds a choice, and no task switch.

    def ask(self, message: Any) -> Coroutine[Any, Any, Any]:
        return self._worker_for(message).ask(message)

    def ask_now(self, message: Any) -> Any:
        return self._worker_for(message).ask_now(message)

    def tell(self, message: Any) -> Coroutine[Any, Any, None]:
        return self._worker_for(message).tell(message)

    def try_tell(self, message: Any) -> bool:
        return self._worker_for(message).try_tell(message)

    async def end(self, how: Ending) -> None:
        """End all workers at once, then the pool. Cancelled: the workers' ends go on, the pool is left to them."""
        if (caller := held_up()) is not None:
            for worker in self.workers:
                await worker.refuse_cycle(caller)
        async with trio.open_nursery() as nursery:
            for worker in self.workers:
                nursery.start_soon(worker.end, how)
        await self.stop(final=True)

    def _worker_for(self, message: Any) -> Cell:
        if self.pool.key is not None:
            return self.workers[hash(self.pool.key(message)) % len(self.workers)]
        first, self._next = self._next, (self._next + 1) % len(self.workers)
        in_turn = self.workers[first:] + self.workers[:first]
        # A worker that asks its own pool must not wait for itself.
        caller = held_up()
        ready = [worker for worker in in_turn if worker.state == "ready" and worker is not caller]
        if not ready:
            return next((worker for worker in in_turn if not worker.closed and worker is not caller), in_turn[0])
        if self.pool.route == "least_queued":
            return min(ready, key=Cell.load)  # the first of equals, in turn
        return ready[0]

    def snapshot(self) -> dict[str, Any]:
        return super().snapshot() | {"route": self.pool.route, "size": self.pool.size}
