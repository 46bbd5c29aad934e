"""CloudEvents 1.0 in Kafka's binary mode: attributes in headers, data in the value. Pure.

Source: CloudEvents Kafka Protocol Binding 1.0, §3.2.
"""

from datetime import UTC, datetime

from backends.ports.events import Event, NewRecord, Record

CONTENT_TYPE = b"application/json"


class Undecodable(ValueError):
    """The record is not a CloudEvent we can read; it never will be, however often it is tried."""


def to_record(event: Event) -> NewRecord:
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", event.id.encode()),
        ("ce_source", event.source.encode()),
        ("ce_type", event.type.encode()),
        ("ce_time", datetime.fromtimestamp(event.time, UTC).isoformat().encode()),
        ("content-type", CONTENT_TYPE),
    ]
    if event.subject:
        headers.append(("ce_subject", event.subject.encode()))
    if event.traceparent:
        headers.append(("traceparent", event.traceparent.encode()))
    return NewRecord(event.topic, event.key.encode(), event.data, tuple(headers))


def from_record(record: Record) -> Event:
    """Raises `Undecodable` naming what is missing or malformed."""
    headers = dict(record.headers)
    try:
        if headers["ce_specversion"] != b"1.0":
            raise Undecodable(f"{record.id}: ce_specversion is {headers['ce_specversion']!r}, not 1.0")
        return Event(
            topic=record.topic,
            key=(record.key or b"").decode(),
            type=headers["ce_type"].decode(),
            id=headers["ce_id"].decode(),
            time=datetime.fromisoformat(headers["ce_time"].decode()).timestamp(),
            data=record.value or b"",
            subject=headers.get("ce_subject", b"").decode(),
            source=headers["ce_source"].decode(),
            traceparent=headers.get("traceparent", b"").decode(),
        )
    except KeyError as missing:
        raise Undecodable(f"{record.id}: header {missing.args[0]} is missing") from None
    except UnicodeDecodeError:
        raise Undecodable(f"{record.id}: a CloudEvents attribute is not UTF-8") from None
    except ValueError as error:
        raise Undecodable(str(error)) from None
