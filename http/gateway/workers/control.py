"""What the operator's app sees and does of all workers together: their parent's answers."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import trio

from actors.metrics import Metrics
from actors.runtime import System
from backends.ports.stores import Progress
from gateway.admin.control import Phase
from gateway.admin.operations import OperationError, unwatched
from gateway.admin.readiness import Readiness
from gateway.admin.readings import Reading, merged, read
from gateway.admin.remote import RemoteOperations
from gateway.workers.fleet import Fleet
from gateway.workers.process import WorkerProcess
from gateway.workers.remote import RemoteWorker, Silent

T = TypeVar("T")


def worker_id(number: int) -> str:
    return f"worker:{number}"


def readiness_of_all(
    phase: Phase, nodes: Mapping[str, dict[str, Any]], answers: Mapping[str, Readiness | None]
) -> Readiness:
    """Ready while one worker is, degraded unless all are as ready as can be. Pure.

    Args:
        nodes: the snapshots of the workers' actors, by id.
        answers: what the workers that run say of themselves; None: nothing.
    """
    if phase.draining:
        return Readiness(False, False, ("draining",))
    if not phase.started:
        return Readiness(False, False, ("starting",))
    reasons: list[str] = []
    ready = whole = 0
    for id, node in nodes.items():
        answer = answers.get(id)
        if answer is None:
            if node["state"] == "ready":
                reasons.append(f"{id} is silent")
            else:
                reasons.append(f"{id} is {node['state']}" + (f" ({node['last_error']})" if node["last_error"] else ""))
            continue
        reasons += [f"{id}: {reason}" for reason in answer.reasons]
        ready += answer.ready
        whole += answer.ready and not answer.degraded
    return Readiness(ready > 0, ready > 0 and whole < len(nodes), tuple(reasons))


class WorkersControl:
    """The parent's `Control`. Workers are asked at the same time; one that does not answer is said to be silent."""

    def __init__(
        self,
        system: System,
        phase: Phase,
        fleet: Fleet,
        metrics: Metrics,
        *,
        openapi: Callable[[], dict[str, Any]],
        roll: Callable[[], Awaitable[int]],
    ) -> None:
        self._system = system
        self._phase = phase
        self._fleet = fleet
        self._metrics = metrics
        self._openapi = openapi
        self._roll = roll

    async def readiness(self) -> Readiness:
        ids = [worker_id(number) for number in range(1, self._fleet.workers + 1)]
        nodes = {node["id"]: node for node in self._system.snapshot()["children"] if node["id"] in ids}
        return readiness_of_all(self._phase, nodes, await self._current(RemoteWorker.readiness))

    async def snapshot(self) -> dict[str, Any]:
        """The parent's tree; below each worker's actor the tree of its process."""
        own = self._system.snapshot()
        trees = await self._current(RemoteWorker.snapshot)
        for node in own["children"]:
            if tree := trees.get(node["id"]):
                node["children"] = [tree]
        return own

    async def crash(self, id: str) -> None:
        """An actor of the parent by its id, of one worker by `worker:N/ID`, of all workers that have it by `ID`."""
        worker, _, inner = id.partition("/")
        if inner:
            if not (await self._current(partial(_crash, inner), only=worker)).get(worker):
                raise LookupError(f"no actor {inner!r} in {worker}")
            return
        try:
            self._system.crash(id)
        except LookupError as unknown:
            if not any((await self._current(partial(_crash, id))).values()):
                raise LookupError(f"{unknown}; and no worker has it") from None

    async def roll(self) -> int:
        return await self._roll()

    async def readings(self) -> Sequence[Reading]:
        found: list[Sequence[Reading]] = [read(self._metrics), self._fleet.gone]

        async def ask(process: WorkerProcess) -> None:
            try:
                process.readings = await RemoteWorker(process.control).readings()
            except Silent:
                pass  # what it said last stands
            if process in self._fleet.alive:  # else it is among those that are gone
                found.append(process.readings)

        async with trio.open_nursery() as nursery:
            for process in self._fleet.alive:
                if isinstance(process, WorkerProcess):
                    nursery.start_soon(ask, process)
        return merged(found)

    def openapi(self) -> dict[str, Any]:
        return self._openapi()

    async def _current(
        self, question: Callable[[RemoteWorker], Awaitable[T]], only: str | None = None
    ) -> dict[str, T | None]:
        """The answers of the workers that run, by the ids of their actors; None of one that gives none."""
        answers: dict[str, T | None] = {}

        async def ask(id: str, process: WorkerProcess) -> None:
            try:
                answers[id] = await question(RemoteWorker(process.control))
            except Silent:
                answers[id] = None

        async with trio.open_nursery() as nursery:
            for number, process in self._fleet.current.items():
                if isinstance(process, WorkerProcess) and only in (None, worker_id(number)):
                    nursery.start_soon(ask, worker_id(number), process)
        return answers


async def _crash(id: str, worker: RemoteWorker) -> bool:
    return await worker.crash(id)


class ForwardedOperations:
    """The operator's operations, done by a worker: all of them have what they need."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def call(self, name: str, arguments: dict[str, Any], progress: Progress = unwatched) -> Any:
        """Raises OperationError."""
        for process in self._fleet.current.values():
            if isinstance(process, WorkerProcess):
                async with RemoteOperations(process.control) as worker:
                    return await worker.call(name, arguments, progress)
        raise OperationError(f"{name}: no worker is ready; try again in a moment")
