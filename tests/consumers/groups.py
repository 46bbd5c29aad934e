"""The group `search` over `entity.changed`, with a handler that records: what the consumer's tests are about."""

from functools import partial
from typing import Any

import trio

from actors.consumers.consumer import Consumer
from actors.metrics import Metrics
from backends.ports.events import ENTITY_CHANGED, NewRecord
from tests.consumers.fakes import OPTIONS, MaxJitter, MemoryLog, Recorder

DLT = "entity.changed.search.dlt"
PARTITION = (ENTITY_CHANGED, 0)


def consumer(handler: Any, metrics: Metrics | None = None, **options: Any) -> partial[Consumer]:
    return partial(
        Consumer,
        "search",
        (ENTITY_CHANGED,),
        handler,
        metrics=metrics or Metrics(),
        now=trio.current_time,
        rng=MaxJitter(),
        **{"options": OPTIONS, **options},
    )


def log_with(*records: NewRecord) -> MemoryLog:
    log = MemoryLog()
    log.add(*records)
    return log


def failing(*ids: str, error: type[Exception] = OSError) -> Recorder:
    handler = Recorder()
    handler.failing = {id: lambda: error(f"{error.__name__} for a test") for id in ids}
    return handler
