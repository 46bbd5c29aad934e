"""The `worker:N` actors of the parent, each looking after one process, and `roll`, which replaces them all."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
import trio

from actors.runtime import Actor, ActorError, Later, Reject
from gateway.workers.fleet import Fleet
from gateway.workers.process import Launch, Process, WorkerEnded, ended

log = structlog.get_logger(__name__)

_BEAT_S = 0.5
_READY_S = 60.0


@dataclass(frozen=True, slots=True)
class Replace:
    """→ None, once a new process is ready and the old one has drained and ended. Rejected with WorkerEnded or
    TooSlowError when the new one does not come up: the old one stays."""


@dataclass(frozen=True, slots=True)
class Leave:
    """→ None. Drain and end the process within *timeout* seconds; the actor stays, without one."""

    timeout: float


@dataclass(frozen=True, slots=True)
class Reload:
    """→ None. The process reads its settings again."""


@dataclass(frozen=True, slots=True)
class Beat:
    """Half a second has passed: whoever is told to crash on its next message must get one."""


class Worker(Actor[Replace | Leave | Reload | Beat]):
    """Ready when its process is. A process that ends without being told to is a crash of this actor; stopping the
    actor ends the process, by SIGTERM and, within `stop` seconds, by SIGKILL. Under `on_crash="fail"`."""

    def __init__(self, number: int, launch: Launch, fleet: Fleet, *, drain: float, stop: float) -> None:
        self._number = number
        self._launch = launch
        self._fleet = fleet
        self._drain = drain
        self._stop_within = stop
        self._process: Process | None = None
        self._ours: list[Process] = []

    async def on_start(self) -> None:
        self._take(await self._started())
        self.timer(_BEAT_S, Beat(), every=_BEAT_S)

    def describe(self) -> dict[str, Any]:
        return {} if self._process is None else {"pid": self._process.pid}

    async def handle(self, message: Replace | Leave | Reload | Beat) -> Later | None:
        match message:
            case Reload():
                for process in self._ours:
                    process.signal(signal.SIGHUP)
            case Replace():
                later = self.later()
                self.spawn(self._replace, later)
                return later
            case Leave(timeout=timeout):
                later = self.later()
                self.spawn(self._leave, timeout, later)
                return later
            case Beat():
                pass
        return None

    async def on_stop(self) -> None:
        self._process = None
        async with trio.open_nursery() as nursery:
            for process in tuple(self._ours):
                nursery.start_soon(self._end, process, self._stop_within)

    async def _started(self) -> Process:
        """Raises WorkerEnded. Cancelled, or failed, it leaves no process behind."""
        process = self._launch(self._number)
        self._fleet.started(process)
        try:
            await process.until_ready()
        except BaseException:
            process.signal(signal.SIGKILL)
            with trio.CancelScope(shield=True), trio.move_on_after(_BEAT_S):
                await process.until_ended()
            self._fleet.ended(process)
            raise
        return process

    def _take(self, process: Process) -> None:
        self._process = process
        self._ours.append(process)
        self._fleet.current[self._number] = process
        self.spawn(self._watch, process)

    async def _watch(self, process: Process) -> None:
        code = await process.until_ended()
        self._forget(process)
        if process is self._process:
            raise WorkerEnded(self._number, process.pid, code)

    async def _replace(self, later: Later) -> None:
        try:
            with trio.fail_after(_READY_S):
                new = await self._started()
        except (WorkerEnded, trio.TooSlowError, OSError) as error:
            later.fail(Reject(error))
            return
        old = self._process
        self._take(new)
        if old is not None:
            await self._told_to_end(old, self._drain)
        log.info("worker replaced", worker=self._number, pid=new.pid, was=old and old.pid)
        later.answer(None)

    async def _leave(self, timeout: float, later: Later) -> None:
        process, self._process = self._process, None
        if process is not None:
            await self._told_to_end(process, timeout)
        later.answer(None)

    async def _told_to_end(self, process: Process, within: float) -> None:
        """`_watch` hears of its end, as of any other."""
        process.signal(signal.SIGTERM)
        with trio.move_on_after(within):
            while process in self._ours:  # noqa: ASYNC110 - at the end of a drain, which takes a second or more
                await trio.sleep(0.05)
            return
        log.warning("a worker did not end in time and is killed", worker=self._number, pid=process.pid)
        process.signal(signal.SIGKILL)

    async def _end(self, process: Process, within: float) -> None:
        await ended(process, within)
        self._forget(process)

    def _forget(self, process: Process) -> None:
        if process in self._ours:
            self._ours.remove(process)
        self._fleet.ended(process)


@dataclass(frozen=True, slots=True)
class RollAll:
    """→ int: how many workers were replaced, one after the other. Rejected with the error of the first that could
    not be; it and those after it stay as they are."""


class Roller(Actor[RollAll]):
    """One roll at a time. *workers*: the ids of the workers' actors."""

    def __init__(self, workers: Sequence[str]) -> None:
        self._workers = workers

    async def handle(self, message: RollAll) -> int:
        for id in self._workers:
            try:
                await self.lookup(id).ask(Replace())
            except Reject as refusal:
                raise Reject(RuntimeError(f"{id} was not replaced: {refusal.error}")) from None
            except ActorError as error:
                raise Reject(RuntimeError(f"{id} was not replaced: {error}")) from None
        return len(self._workers)
