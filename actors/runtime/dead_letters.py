"""Messages that nobody handled, counted by reason and offered to whoever watches."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Reason = Literal["expired", "abandoned", "dropped", "crashed", "stopped", "rejected", "late"]
"""`expired`/`abandoned`: its asker's deadline passed or its asker was cancelled before it was taken.
`dropped`: the mailbox made room. `crashed`: in hand at a crash, a tell. `stopped`: queued when the actor
ended. `rejected`: a tell that the actor refused. `late`: an answer after its asker had gone."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    actor: str
    message: Any
    reason: Reason


class DeadLetters:
    """Counts by (actor, reason), and the subscribers. Subscribers are called inline: they must not block or raise."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, Reason]] = Counter()
        self._subscribers: list[Callable[[DeadLetter], None]] = []

    def subscribe(self, fn: Callable[[DeadLetter], None]) -> None:
        self._subscribers.append(fn)

    def record(self, actor: str, message: Any, reason: Reason) -> None:
        self.counts[actor, reason] += 1
        if self._subscribers:
            letter = DeadLetter(actor, message, reason)
            for fn in self._subscribers:
                fn(letter)
