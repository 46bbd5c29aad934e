"""Messages that nobody handled: counted by reason, offered to whoever watches, and logged without a flood."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

import trio

Reason = Literal["expired", "abandoned", "dropped", "crashed", "stopped", "rejected", "late"]
"""`expired`/`abandoned`: its asker's deadline passed or its asker was cancelled before it was taken.
`dropped`: the mailbox made room. `crashed`: in hand at a crash, a tell. `stopped`: queued when the actor
ended. `rejected`: a tell that the actor refused. `late`: an answer after its asker had gone."""

# Nothing is lost by these: nobody waited any more.
HARMLESS: frozenset[Reason] = frozenset({"expired", "abandoned", "late"})


@dataclass(frozen=True, slots=True)
class DeadLetter:
    actor: str
    message: Any
    reason: Reason


class DeadLetters:
    """Counts by (actor, reason), and the subscribers. Subscribers are called inline: they must not block or raise."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, Reason]] = Counter()
        self._subscribers: dict[object, Callable[[DeadLetter], None]] = {}
        self._log: LetterLog | None = None

    def subscribe(self, fn: Callable[[DeadLetter], None]) -> Callable[[], None]:
        """Call *fn* with every dead letter from now on; what is returned ends that (calling it again does nothing)."""
        subscription = object()
        self._subscribers[subscription] = fn

        def unsubscribe() -> None:
            self._subscribers.pop(subscription, None)

        return unsubscribe

    def record(self, actor: str, message: Any, reason: Reason) -> None:
        self.counts[actor, reason] += 1
        if self._log is not None:
            self._log.note(actor, message, reason)
        if self._subscribers:
            letter = DeadLetter(actor, message, reason)
            for fn in list(self._subscribers.values()):
                fn(letter)

    def log_in(self, nursery: trio.Nursery) -> None:
        """From now on, log them; the summaries' task runs in *nursery*."""
        self._log = LetterLog(nursery)

    def quiet(self) -> None:
        """The system stops, and messages that come too late are no news any more: log no further ones."""
        if self._log is not None:
            self._log.close()
            self._log = None


class LetterLog:
    """The first 10 get a line each (actor, type of the message, reason); what comes after them is summed up in one
    line a minute, until a minute has passed without any.

    At WARNING where work was lost, at INFO where only its asker had gone.
    """

    FIRST = 10
    INTERVAL = 60.0

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._scope = trio.CancelScope()
        self._since = -math.inf
        self._lines = 0
        self._more: Counter[Reason] | None = None  # while they are summed up

    def note(self, actor: str, message: Any, reason: Reason) -> None:
        if self._more is not None:
            self._more[reason] += 1
            return
        now = trio.current_time()
        if now - self._since >= self.INTERVAL:
            self._since = now
            self._lines = 0
        if self._lines < self.FIRST:
            self._lines += 1
            _log.log(_level({reason}), "dead letter: %s for %s: %s", type(message).__name__, actor, reason)
        else:
            self._more = Counter({reason: 1})
            self._nursery.start_soon(self._sum_up)

    def close(self) -> None:
        self._scope.cancel()
        self._write(self._more)

    async def _sum_up(self) -> None:
        with self._scope:
            while self._more is not None:
                await trio.sleep(self.INTERVAL)
                more = self._more
                self._more = Counter() if more else None
                self._write(more)

    def _write(self, more: Counter[Reason] | None) -> None:
        if more:
            counts = ", ".join(f"{reason} {count}" for reason, count in sorted(more.items()))
            _log.log(_level(more), "%d more dead letters: %s", more.total(), counts)


_log = logging.getLogger("actors.runtime")


def _level(reasons: Collection[Reason]) -> int:
    return logging.INFO if HARMLESS.issuperset(reasons) else logging.WARNING
