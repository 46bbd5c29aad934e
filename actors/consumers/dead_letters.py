"""Dead letters as records: how one is made, read back and replayed. Pure.

Names and encodings of the `kafka_dlt-*` headers are Spring Kafka's (DeadLetterPublishingRecoverer), which
tools read: text is UTF-8, partitions are int32 and offsets and times int64, big-endian. Key and value are
the original's, byte for byte. Over further hops the *first* origin and the *last* exception survive:
headers are replaced, never appended, else a record grows with each hop until the log refuses it.
"""

import struct
from collections.abc import Iterable

import msgspec

from actors.consumers.failure import MESSAGE_LIMIT, STACK_LIMIT, Failure, clip
from backends.ports.event_log import Attempt
from backends.ports.events import NewRecord, Record, dead_letter_topic, retry_topic

TOPIC = "kafka_dlt-original-topic"
PARTITION = "kafka_dlt-original-partition"
OFFSET = "kafka_dlt-original-offset"
TIMESTAMP = "kafka_dlt-original-timestamp"
TIMESTAMP_TYPE = "kafka_dlt-original-timestamp-type"
GROUP = "kafka_dlt-original-consumer-group"
EXCEPTION = "kafka_dlt-exception-fqcn"
MESSAGE = "kafka_dlt-exception-message"
STACKTRACE = "kafka_dlt-exception-stacktrace"
ATTEMPTS = "dlt-attempts"
FIRST_FAILURE = "dlt-first-failure-ts"
LAST_FAILURE = "dlt-last-failure-ts"
SERVICE = "dlt-service"
REPLAYS = "dlt-replay-count"
DELIVERY = "dlt-delivery-id"
ENDPOINT = "dlt-endpoint"

_ORIGIN = (TOPIC, PARTITION, OFFSET, TIMESTAMP, TIMESTAMP_TYPE, GROUP)
_KEPT = frozenset((*_ORIGIN, FIRST_FAILURE, REPLAYS))
"""What a replayed record carries beside the event's own headers."""
_REASON = frozenset((EXCEPTION, MESSAGE, STACKTRACE, ATTEMPTS, LAST_FAILURE, SERVICE, DELIVERY, ENDPOINT))
OURS = _KEPT | _REASON
"""All that a dead letter adds to the headers of its event."""

Header = tuple[str, bytes]


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter as operators see it. `id` names it in its own topic, `origin` where it first came from.

    Times are Unix seconds, 0 where unknown. `delivery_id` is set for an exhausted delivery: its replay
    resets that delivery (`DeliveryStore.reset`) and republishes nothing.
    """

    id: str
    origin: str
    group: str
    event_type: str
    event_id: str
    key: str
    attempts: int
    first_failure: float
    last_failure: float
    exception: str
    message: str
    stacktrace: str
    service: str
    replay_count: int
    delivery_id: str
    endpoint: str
    value: bytes | None


def dead_letter(
    record: Record,
    *,
    group: str,
    failure: Failure,
    attempt: Attempt,
    service: str,
    delivery_id: str = "",
    endpoint: str = "",
    replays: int | None = None,
) -> NewRecord:
    """The record that *group* stores when it gives *record* up.

    *record* may be a replayed dead letter: its first origin, first failure and replay count are kept. Of a delivery
    the row counts *replays*, because nothing is republished.
    """
    headers = dict(reversed(record.headers))  # of a repeated name the first: that is the first origin
    topic, _, _ = origin_of(record)
    origin = {name: headers.get(name, value) for name, value in _origin(record, group).items()}
    reason = {
        EXCEPTION: failure.fqcn.encode(),
        MESSAGE: clip(failure.message, MESSAGE_LIMIT).encode(),
        STACKTRACE: clip(failure.stacktrace, STACK_LIMIT, tail=True).encode(),
        ATTEMPTS: struct.pack(">i", attempt.attempts),
        FIRST_FAILURE: headers.get(FIRST_FAILURE, _millis(attempt.first_at)),
        LAST_FAILURE: _millis(attempt.last_at),
        SERVICE: service.encode(),
        REPLAYS: headers.get(REPLAYS, struct.pack(">i", 0)),
    }
    if replays is not None:
        reason[REPLAYS] = struct.pack(">i", replays)
    if delivery_id:
        reason |= {DELIVERY: delivery_id.encode(), ENDPOINT: endpoint.encode()}
    own = (header for header in record.headers if header[0] not in OURS)
    return NewRecord(
        topic=dead_letter_topic(topic, group),
        key=record.key,
        value=record.value,
        headers=(*own, *origin.items(), *reason.items()),
    )


def replay_record(record: Record) -> NewRecord:
    """The record for `<topic>.<group>.retry` that lets the group process a dead letter once more.

    The event's own headers are restored; the origin goes along, so that another failure still names it.
    Raises ValueError for a dead letter that cannot be replayed so: one of a delivery, or one whose
    origin's headers are missing.
    """
    letter = describe(record)
    if letter.delivery_id:
        raise ValueError(f"{letter.id} is a dead letter of delivery {letter.delivery_id}: reset the delivery instead")
    headers = dict(reversed(record.headers))
    if TOPIC not in headers or not letter.group:
        raise ValueError(f"{letter.id} does not say which topic and group it came from")
    topic, _, _ = origin_of(record)
    kept: Iterable[Header] = ((name, headers[name]) for name in (*_ORIGIN, FIRST_FAILURE) if name in headers)
    own = (header for header in record.headers if header[0] not in OURS)
    return NewRecord(
        topic=retry_topic(topic, letter.group),
        key=record.key,
        value=record.value,
        headers=(*own, *kept, (REPLAYS, struct.pack(">i", letter.replay_count + 1))),
    )


def describe(record: Record) -> DeadLetter:
    """Read a record of a dead-letter topic. Never fails: what is missing or malformed reads as empty or 0."""
    headers = dict(reversed(record.headers))
    topic, partition, offset = origin_of(record)
    return DeadLetter(
        id=record.id,
        origin=f"{topic}/{partition}/{offset}",
        group=_text(headers.get(GROUP)),
        event_type=_text(headers.get("ce_type")),
        event_id=_text(headers.get("ce_id")),
        key=_text(record.key),
        attempts=_int(headers.get(ATTEMPTS)),
        first_failure=_int(headers.get(FIRST_FAILURE)) / 1000,
        last_failure=_int(headers.get(LAST_FAILURE)) / 1000,
        exception=_text(headers.get(EXCEPTION)),
        message=_text(headers.get(MESSAGE)),
        stacktrace=_text(headers.get(STACKTRACE)),
        service=_text(headers.get(SERVICE)),
        replay_count=_int(headers.get(REPLAYS)),
        delivery_id=_text(headers.get(DELIVERY)),
        endpoint=_text(headers.get(ENDPOINT)),
        value=record.value,
    )


def origin_of(record: Record) -> tuple[str, int, int]:
    """Where the event first was: (topic, partition, offset), the record's own unless it was replayed."""
    headers = dict(reversed(record.headers))
    if TOPIC not in headers:
        return record.topic, record.partition, record.offset
    return _text(headers[TOPIC]), _int(headers.get(PARTITION)), _int(headers.get(OFFSET))


def _origin(record: Record, group: str) -> dict[str, bytes]:
    return {
        TOPIC: record.topic.encode(),
        PARTITION: struct.pack(">i", record.partition),
        OFFSET: struct.pack(">q", record.offset),
        TIMESTAMP: struct.pack(">q", record.timestamp_ms),
        TIMESTAMP_TYPE: b"CreateTime",
        GROUP: group.encode(),
    }


def _millis(seconds: float) -> bytes:
    return struct.pack(">q", round(seconds * 1000))


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")


def _int(raw: bytes | None) -> int:
    return int.from_bytes(raw or b"", "big", signed=True)
