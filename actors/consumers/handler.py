"""What a consumer group plugs into the generic consumer: its handler, and the sizes and times it runs with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.consumers.partitions import Delivered


class Handler(Protocol):
    """What a group does with its events."""

    async def handle(self, events: Sequence[Delivered]) -> None:
        """Process *events* completely, or raise.

        It must be idempotent: after an exception the events are handed over again one by one, so that only
        the one that fails is charged. Raise `Permanent` for an event that can never be processed. Cancelled:
        none of them counts, neither as done nor as tried.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerOptions:
    """`batch`: records a fetch. Seconds: `max_wait` of a long poll; `refresh` until new topics are looked for
    (replays make theirs on demand); `handler_timeout` for one call of the handler; `ask_timeout` for the log."""

    batch: int = 500
    max_wait: float = 1.0
    refresh: float = 2.0
    handler_timeout: float = 30.0
    ask_timeout: float = 10.0


DEFAULT_OPTIONS = ConsumerOptions()
