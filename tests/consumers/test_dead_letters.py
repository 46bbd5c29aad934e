"""Dead letters: Spring's headers, byte for byte; what survives further hops; what a replay restores."""

import struct

import pytest

from actors.consumers.dead_letters import dead_letter, describe, replay_record
from actors.consumers.failure import STACK_LIMIT, Failure, clip, failure_of, parse_failure
from backends.ports.event_log import Attempt
from backends.ports.events import NewRecord, Record

OWN = (("ce_specversion", b"1.0"), ("ce_id", b"e1"), ("ce_type", b"user.created"), ("traceparent", b"00-ab-cd-01"))
ORIGINAL = Record("entity.changed", 3, 2**33 + 7, 1_700_000_000_123, b"\xff\x00key", b"\x00not json\xfe", OWN)
ATTEMPT = Attempt(3, 0.0, 1_700_000_001.5, 1_700_000_003.25, "ValueError: no")


def stored(record: NewRecord, offset: int = 0) -> Record:
    return Record(record.topic, 0, offset, 1, record.key, record.value, record.headers)


def bury(record: Record, message: str = "no", attempt: Attempt = ATTEMPT) -> NewRecord:
    failure = Failure("builtins.ValueError", message, "Traceback…")
    return dead_letter(record, group="search", failure=failure, attempt=attempt, service="weir@a")


def test_key_and_value_and_the_events_own_headers_are_untouched() -> None:
    letter = bury(ORIGINAL)
    assert letter.topic == "entity.changed.search.dlt"
    assert (letter.key, letter.value) == (ORIGINAL.key, ORIGINAL.value)
    assert letter.headers[: len(OWN)] == OWN


def test_headers_have_springs_names_and_encodings() -> None:
    headers = dict(bury(ORIGINAL).headers)
    assert headers["kafka_dlt-original-topic"] == b"entity.changed"
    assert headers["kafka_dlt-original-partition"] == (3).to_bytes(4, "big")
    assert headers["kafka_dlt-original-offset"] == (2**33 + 7).to_bytes(8, "big")
    assert headers["kafka_dlt-original-timestamp"] == (1_700_000_000_123).to_bytes(8, "big")
    assert headers["kafka_dlt-original-timestamp-type"] == b"CreateTime"
    assert headers["kafka_dlt-original-consumer-group"] == b"search"
    assert headers["kafka_dlt-exception-fqcn"] == b"builtins.ValueError"
    assert headers["kafka_dlt-exception-message"] == b"no"
    assert headers["kafka_dlt-exception-stacktrace"] == "Traceback…".encode()
    assert struct.unpack(">i", headers["dlt-attempts"]) == (3,)
    assert struct.unpack(">q", headers["dlt-first-failure-ts"]) == (1_700_000_001_500,)
    assert struct.unpack(">q", headers["dlt-last-failure-ts"]) == (1_700_000_003_250,)
    assert headers["dlt-service"] == b"weir@a"
    assert struct.unpack(">i", headers["dlt-replay-count"]) == (0,)


def test_a_dead_letter_reads_back_as_operators_see_it() -> None:
    letter = describe(stored(bury(ORIGINAL), offset=5))
    assert letter.id == "entity.changed.search.dlt/0/5"
    assert letter.origin == ORIGINAL.id
    assert (letter.group, letter.event_type, letter.event_id) == ("search", "user.created", "e1")
    assert (letter.attempts, letter.first_failure, letter.last_failure) == (3, 1_700_000_001.5, 1_700_000_003.25)
    assert (letter.exception, letter.message) == ("builtins.ValueError", "no")
    assert (letter.replay_count, letter.delivery_id, letter.value) == (0, "", ORIGINAL.value)


def test_a_replay_restores_the_event_and_counts() -> None:
    replay = replay_record(stored(bury(ORIGINAL)))
    assert replay.topic == "entity.changed.search.retry"
    assert (replay.key, replay.value, replay.headers[: len(OWN)]) == (ORIGINAL.key, ORIGINAL.value, OWN)
    assert not [name for name, _ in replay.headers if "exception" in name or name == "dlt-attempts"]
    assert struct.unpack(">i", dict(replay.headers)["dlt-replay-count"]) == (1,)


def test_over_hops_the_first_origin_and_the_last_exception_survive_and_nothing_piles_up() -> None:
    record, later = ORIGINAL, Attempt(1, 0.0, 1_700_009_999.0, 1_700_009_999.0, "")
    sizes = []
    for hop in range(4):
        letter = bury(record, message=f"hop {hop}", attempt=later if hop else ATTEMPT)
        sizes.append(len(letter.headers))
        record = stored(replay_record(stored(letter)), offset=100 + hop)
    last = describe(stored(letter))
    assert letter.topic == "entity.changed.search.dlt"
    assert len(set(sizes)) == 1
    assert (last.origin, last.first_failure) == (ORIGINAL.id, ATTEMPT.first_at)
    assert (last.message, last.last_failure, last.attempts, last.replay_count) == ("hop 3", later.last_at, 1, 3)


def test_of_a_repeated_origin_header_the_first_counts() -> None:
    appended = (*OWN, ("kafka_dlt-original-topic", b"first"), ("kafka_dlt-original-topic", b"second"))
    letter = bury(Record("t", 0, 0, 0, None, None, appended))
    assert letter.topic == "first.search.dlt"


def test_the_dead_letter_of_a_delivery_names_it_and_is_not_republished() -> None:
    letter = dead_letter(
        ORIGINAL,
        group="notification",
        failure=Failure("HTTPStatus", "500"),
        attempt=ATTEMPT,
        service="weir",
        delivery_id="msg_1",
        endpoint="hook-1",
    )
    described = describe(stored(letter))
    assert (described.delivery_id, described.endpoint) == ("msg_1", "hook-1")
    with pytest.raises(ValueError, match="reset the delivery"):
        replay_record(stored(letter))


def test_a_record_of_foreign_make_can_be_shown_but_not_replayed() -> None:
    foreign = Record("x.dlt", 0, 1, 0, None, None, (("kafka_dlt-original-offset", b""), ("dlt-attempts", b"\xff" * 9)))
    assert describe(foreign).origin == "x.dlt/0/1"
    with pytest.raises(ValueError, match="does not say"):
        replay_record(foreign)


def test_the_stack_trace_is_capped_and_keeps_its_end() -> None:
    def deep(n: int) -> None:
        if n == 0:
            raise ValueError("the end ✓")
        (lambda: deep(n - 1))()

    with pytest.raises(ValueError) as caught:
        deep(200)
    failure = failure_of(caught.value)
    assert len(failure.stacktrace.encode()) <= STACK_LIMIT
    assert failure.stacktrace.rstrip().endswith("ValueError: the end ✓")


def test_an_error_that_says_nothing_speaks_through_its_cause() -> None:
    error = RuntimeError()
    error.__cause__ = OSError("certificate expired")
    assert str(failure_of(error)) == "RuntimeError: certificate expired"


def test_a_persisted_attempt_still_names_its_failure() -> None:
    failure = failure_of(OSError("disk: full"))
    again = parse_failure(str(failure))
    assert (again.fqcn, again.message) == ("OSError", "disk: full")


@pytest.mark.parametrize("text", ["ä" * 10, "\ud800lone", "x" * 100])
def test_clipping_cuts_whole_characters(text: str) -> None:
    assert len(clip(text, 7).encode()) <= 7
    assert len(clip(text, 7, tail=True).encode()) <= 7
