"""Answers given later (OTP's `noreply` and `reply`), and what an incarnation knows of those that are open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from actors.runtime.envelope import Envelope


class Later:
    """An answer given later. Dies with the incarnation that made it.

    One that is dropped without an answer can be answered by nobody: its ask raises `NeverAnswered`.
    """

    __slots__ = ("_bound", "_result")

    def __init__(self) -> None:
        self._bound: tuple[Envelope, OpenLaters] | None = None
        self._result: tuple[bool, Any] | None = None

    def answer(self, value: Any) -> None:
        """Answer the ask with *value*. A second answer raises RuntimeError."""
        self._settle(True, value)

    def fail(self, error: object) -> None:
        """Refuse the ask: it raises `Reject` with `.error` as given here."""
        self._settle(False, error)

    def _settle(self, ok: bool, result: Any) -> None:
        if self._result is not None:
            raise RuntimeError("this Later was answered before; an ask is answered once")
        self._result = (ok, result)
        if self._bound is not None:
            envelope, laters = self._bound
            laters.settle(envelope, ok, result)

    def _bind(self, envelope: Envelope, laters: OpenLaters) -> tuple[bool, Any] | None:
        """Called when the handler returned this. The answer, when it was given before; else it goes to *laters*."""
        if self._bound is not None:
            raise RuntimeError("a Later answers one message; make one for each with self.later()")
        self._bound = envelope, laters
        return self._result

    def __del__(self) -> None:
        # In whatever thread, and in the midst of whatever, the garbage collector happens to run.
        if self._result is None and self._bound is not None:
            envelope, laters = self._bound
            laters.drop(envelope)


class OpenLaters:
    """The messages of one incarnation that are answered later and are not yet, in order of arrival.

    It holds no `Later`: only so can one be seen to be dropped.

    Args:
        deliver: called with each answer and the time when its message was taken in hand.
        unanswered: called with the envelope of a Later that nobody holds any more; returns whether that is
            settled now. (Not in the midst of a crash: tasks drop what they held, and the crash decides about it.)
    """

    def __init__(
        self, deliver: Callable[[Envelope, bool, Any, float], None], unanswered: Callable[[Envelope], bool]
    ) -> None:
        self._deliver = deliver
        self._unanswered = unanswered
        self._token = trio.lowlevel.current_trio_token()
        self._open: dict[Envelope, float] = {}
        self._settled: trio.Event | None = None
        self.on_settled: Callable[[], None] | None = None
        """Called after each answer."""

    def add(self, later: Later, envelope: Envelope, since: float) -> None:
        """*since*: when the message was taken in hand."""
        result = later._bind(envelope, self)
        if result is None:
            self._open[envelope] = since
        else:
            self._deliver(envelope, *result, since)

    def __contains__(self, envelope: Envelope) -> bool:
        return envelope in self._open

    def __len__(self) -> int:
        return len(self._open)

    def settle(self, envelope: Envelope, ok: bool, result: Any) -> None:
        """An answer after the incarnation has ended reaches nobody, and is no error."""
        if envelope in self._open:
            self._deliver(envelope, ok, result, self._open.pop(envelope))
            self.wake()

    def drop(self, envelope: Envelope) -> None:
        """Nobody can answer it any more. Safe in any thread, and after the end of the run."""
        if envelope in self._open:
            try:
                self._token.run_sync_soon(self._give_up, envelope)
            except trio.RunFinishedError:
                pass

    def _give_up(self, envelope: Envelope) -> None:
        if envelope in self._open and self._unanswered(envelope):
            del self._open[envelope]
            self.wake()

    def wake(self) -> None:
        if self._settled is not None:
            self._settled.set()
        if self.on_settled is not None:
            self.on_settled()

    def since(self) -> float | None:
        """When the oldest one was taken in hand."""
        return next(iter(self._open.values()), None)

    def any_retried(self) -> bool:
        return any(envelope.retried for envelope in self._open)

    def any_awaited(self) -> bool:
        """Whether some asker still waits; a told message counts as well."""
        return any(not envelope.abandoned for envelope in self._open)

    async def wait(self) -> None:
        """Until one is settled, or `wake` is called."""
        self._settled = trio.Event()
        await self._settled.wait()
        self._settled = None

    def take_all(self) -> list[Envelope]:
        """The incarnation has ended: those still open. Whatever answers them now is too late."""
        rest = list(self._open)
        self._open.clear()
        return rest
