"""How the rest of the program talks to an actor: a reference that stays the same across restarts."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Generic, Literal, Protocol, TypeVar

import trio

from actors.runtime.errors import AskTimeout
from actors.runtime.monitors import Monitor, Monitors

M = TypeVar("M")

Ending = Literal["stop", "kill", "drain"]


class Port(Protocol):
    """What a reference leads to: an actor's cell, or a pool."""

    id: str
    monitors: Monitors

    def ask(self, message: Any) -> Coroutine[Any, Any, Any]: ...
    def ask_now(self, message: Any) -> Any: ...
    def tell(self, message: Any) -> Coroutine[Any, Any, None]: ...
    def try_tell(self, message: Any) -> bool: ...
    async def end(self, how: Ending) -> None: ...


class Ref(Generic[M]):
    """A stable reference to one actor (or pool) of the tree. Valid before its first start and after its last stop."""

    __slots__ = ("_cell", "id")

    def __init__(self, cell: Port) -> None:
        self._cell = cell
        self.id = cell.id

    def __repr__(self) -> str:
        return f"<Ref {self.id}>"

    def ask(self, message: M, timeout: float | None = None) -> Coroutine[Any, Any, Any]:
        """Send *message* and wait for its answer.

        With *timeout* (seconds) it raises `AskTimeout` when that passes; with None the caller's own cancel
        scope is the deadline. Raises one of the `ActorError`s, never silence. Cancelled while the message
        is queued: it is not handled; later: it may be.
        """
        # The cell's own coroutine: each one in between would cost every switch of tasks a step more.
        return self._cell.ask(message) if timeout is None else self._ask_within(message, timeout)

    def ask_now(self, message: M) -> Any:
        """The answer to *message*, where it can be had without waiting: the actor is idle, its handler is a plain
        function, and it answers at once. Raises `Reject` as `ask` does.

        Else trio.WouldBlock. It may have been handled all the same (the answer would have come later, or the
        handler crashed): for messages that may be sent twice, so that the next step can be `ask`.
        """
        return self._cell.ask_now(message)

    async def _ask_within(self, message: M, timeout: float) -> Any:
        with trio.move_on_after(timeout):
            return await self._cell.ask(message)
        raise AskTimeout(f"{self.id} did not answer within {timeout} s; the message may have been handled")

    def tell(self, message: M) -> Coroutine[Any, Any, None]:
        """Send *message* without an answer. Waits for room where the mailbox's policy is to wait.

        Raises `MailboxFull` (policy `reject`) or `ActorStopped`. Cancelled: it was not sent.
        """
        return self._cell.tell(message)

    def try_tell(self, message: M) -> bool:
        """Send *message* if it can be accepted now; never waits, never raises. True: it is queued."""
        return self._cell.try_tell(message)

    async def monitor(self) -> Monitor:
        """Watch the incarnation there is, or the first to come: `await monitor` gives its one `Down`.

        A restart is a Down too, and says so; watch again for the next one. When none is alive now and one was
        (in backoff, or ended for good), its Down is given at once.
        """
        await trio.lowlevel.checkpoint()
        return self._cell.monitors.open()

    async def stop(self) -> None:
        """End the actor for good after the messages in hand (open Laters too), within its shutdown budget.

        Returns when `on_stop` has. What is queued goes to dead letters, its asks get `ActorStopped`; so do
        new ones from now on. It is not restarted. Raises `AskCycle` in a handler that would wait for its own
        end (`Actor.stop` is for that). Cancelled: the stop goes on.
        """
        await self._cell.end("stop")

    async def drain(self) -> None:
        """`stop`, but what is queued is handled first. In backoff nobody is there to handle it: then as `stop`."""
        await self._cell.end("drain")

    async def kill(self) -> None:
        """`stop`, but what is in hand is cancelled now, and with it the spawned tasks; `on_stop` still runs.

        The asks in hand get `ActorCrashed`, for they may have been handled; its cause is `Killed`.
        """
        await self._cell.end("kill")
