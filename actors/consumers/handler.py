"""What a consumer group plugs into the generic consumer: its handler, and the sizes and times it runs with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from actors.consumers.partitions import Delivered


class Handler(Protocol):
    """What a group does with its events."""

    async def handle(self, events: Sequence[Delivered]) -> None:
        """Process *events* completely, or raise. Events with the same key are in the order of the log.

        It must be idempotent: after an exception the events are handed over again one by one, so that only
        the one that fails is charged. Raise `Permanent` for an event that can never be processed. Cancelled:
        none of them counts, neither as done nor as tried.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerOptions:
    """How much at once, and for how long.

    `concurrency`: calls of the handler at a time, and `partition_concurrency` those with records of one partition
    (None: no limit of its own). `batch`: records in one call at most; with a concurrency of 1 a call may take them
    from all partitions, else from one. `order` "key": a record waits for those before it with its key; "partition":
    for all those before it in its partition.
    `fetch`: records asked of the log at once. `buffer` and `buffer_total`: unfinished records in memory, of one
    partition and in all; what waits for its next attempt counts.
    Seconds: `max_wait` of a long poll; `refresh` until new topics are looked for (replays make theirs on demand);
    `handler_timeout` for one call of the handler; `ask_timeout` for the log; `commit_interval` between commits while
    records are in hand; `drain` for what is in hand when a partition is taken away.
    """

    concurrency: int = 1
    partition_concurrency: int | None = None
    batch: int = 500
    order: Literal["key", "partition"] = "key"
    fetch: int = 500
    buffer: int = 1000
    buffer_total: int = 4000
    max_wait: float = 1.0
    refresh: float = 2.0
    handler_timeout: float = 30.0
    ask_timeout: float = 10.0
    commit_interval: float = 1.0
    drain: float = 10.0

    def __post_init__(self) -> None:
        for name in ("concurrency", "batch", "fetch", "buffer", "buffer_total"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if self.partition_concurrency is not None and self.partition_concurrency < 1:
            raise ValueError(f"partition_concurrency must be at least 1, got {self.partition_concurrency!r}")
        if self.order not in ("key", "partition"):
            raise ValueError(f'order must be "key" or "partition", got {self.order!r}')


DEFAULT_OPTIONS = ConsumerOptions()
