"""Events as the services publish them and records as a log stores them.

Shapes only. `cloudevents.py` beside it turns one into the other.
"""

from collections.abc import Mapping

import msgspec

# The topics of the source. Their names are part of the outside contract.
AUDIT = "audit"
ENTITY_CHANGED = "entity.changed"
CACHE_INVALIDATE = "cache.invalidate"


def dead_letter_topic(topic: str, group: str) -> str:
    """Where *group* puts the records of *topic* that it gave up on."""
    return f"{topic}.{group}.dlt"


def retry_topic(topic: str, group: str) -> str:
    """Where replayed dead letters go; read by *group* alone."""
    return f"{topic}.{group}.retry"


class Event(msgspec.Struct, frozen=True, gc=False):
    """One CloudEvents 1.0 event on its way to the log.

    `key` decides the partition, so order holds per key; `data` is a JSON document, encoded once.
    `time` is Unix time in seconds.
    """

    topic: str
    key: str
    type: str
    id: str
    time: float
    data: bytes
    subject: str = ""
    source: str = "weir"
    traceparent: str = ""


class NewRecord(msgspec.Struct, frozen=True, gc=False):
    """A record before the log gave it an offset. `partition` None: chosen by murmur2 of the key."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record as the log returns it. `timestamp_ms` is Unix time in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def id(self) -> str:
        """`topic/partition/offset`, as the command line names a record."""
        return f"{self.topic}/{self.partition}/{self.offset}"


Partition = tuple[str, int]
"""A topic's name and a partition number."""

Offsets = Mapping[Partition, int]
"""The *next* offset to read, per partition (Kafka's meaning of a committed offset)."""
