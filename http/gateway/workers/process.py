"""One worker process, from its parent's side: started, heard, told to end."""

import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import structlog
import trio

from gateway.admin.readings import Reading
from gateway.sockets import open_sockets
from gateway.workers.lifeline import Beginning, Last, decoder, line

log = structlog.get_logger(__name__)

_KILL_GRACE_S = 5.0


class WorkerEnded(Exception):
    """A worker process that was to run has ended. `code`: its exit code, negative for a signal."""

    def __init__(self, number: int, pid: int, code: int) -> None:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        super().__init__(f"worker {number} (process {pid}) {how}")
        self.code = code


class Process(Protocol):
    """What looks after a worker needs of it."""

    pid: int
    readings: Sequence[Reading]
    """What it counted, as last known."""

    async def until_ready(self) -> None:
        """Raises WorkerEnded."""
        ...

    async def until_ended(self) -> int:
        """Its exit code, negative for a signal."""
        ...

    def signal(self, number: int) -> None: ...


Launch = Callable[[int], Process]
"""Starts the process of a worker; its number from 1 on."""


class WorkerProcess:
    """Started by the constructor, in the calling thread: where it can, the kernel ends a child with the *thread* that
    made it, so this must be one that lives as long as the parent.

    Args:
        number: of the worker, from 1 on.
        command: what to run; `--number`, `--public` and `--control` (descriptors) are added.
        public: the listening sockets that it shares with the others.
        control: the path of its own control socket, which is made here and removed when it has ended.
        beginning: what it is to run.
    """

    def __init__(
        self, number: int, command: Sequence[str], public: Sequence[socket.socket], control: Path, beginning: Beginning
    ) -> None:
        self.number = number
        self.control = control
        self.readings: Sequence[Reading] = ()
        self.ready = False
        ours, theirs = socket.socketpair()
        with theirs, open_sockets([f"unix:{control}"])[0] as listening:
            fds = [sock.fileno() for sock in public]
            arguments = ["--number", str(number), "--control", str(listening.fileno())]
            for fd in fds:
                arguments += ["--public", str(fd)]
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [*command, *arguments],
                stdin=theirs.fileno(),
                pass_fds=[*fds, listening.fileno()],
                process_group=0,  # Ctrl-C is for the parent, who tells us
            )
        self.pid = self._process.pid
        ours.setblocking(False)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self._received = b""
        self._beginning: bytes | None = line(beginning)

    async def until_ready(self) -> None:
        try:
            if self._beginning is not None:
                await self._stream.send_all(self._beginning)
                self._beginning = None
            while not self.ready:
                if not await self._hear():
                    raise WorkerEnded(self.number, self.pid, await self.until_ended())
        except trio.BrokenResourceError:
            raise WorkerEnded(self.number, self.pid, await self.until_ended()) from None

    async def until_ended(self) -> int:
        while await self._hear():
            pass
        while (code := self._process.poll()) is None:  # noqa: ASYNC110 - it has closed its end: it is ending
            await trio.sleep(0.01)
        self.control.unlink(missing_ok=True)
        self._stream.socket.close()
        self.ready = False
        return code

    def signal(self, number: int) -> None:
        self._process.send_signal(number)  # no-op once it was reaped

    async def _hear(self) -> bool:
        """Take in what it says next. False: it says nothing any more."""
        try:
            more = await self._stream.receive_some(1 << 20)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        *lines, self._received = (self._received + more).split(b"\n")
        for said in lines:
            match decoder.decode(said):
                case Last(readings=readings):
                    self.readings = readings
                case _:
                    self.ready = True
        return bool(more)


async def ended(process: Process, within: float) -> int:
    """Tell *process* to end, by SIGTERM; by SIGKILL when it did not within so many seconds. Its exit code.

    Cancelled, it kills it.
    """
    try:
        process.signal(signal.SIGTERM)
        with trio.move_on_after(within):
            return await process.until_ended()
        log.warning("a worker did not end in time and is killed", pid=process.pid)
    finally:
        process.signal(signal.SIGKILL)
    with trio.fail_after(_KILL_GRACE_S):
        return await process.until_ended()
