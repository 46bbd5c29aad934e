"""What every entity store promises."""

from collections.abc import Sequence

import pytest

from backends.ports.cloudevents import from_record, to_record
from backends.ports.entities import Decision, Entity, Key, Refused, Write
from backends.ports.events import Event, Record
from tests.backends.conftest import Backend

ADA = Key("user", "ada")
BOB = Key("user", "bob")


def user(key: Key, version: int, body: bytes = b"{}", expires_at: float = 0.0) -> Entity:
    return Entity(key.kind, key.id, version, 1_700_000_000.1234567, 1_700_000_001.5, body, expires_at)


def put(*entities: Entity, events: tuple[Event, ...] = ()) -> Write:
    keys = tuple(entity.key for entity in entities)
    return Write(keys, lambda found, removed: Decision("put", put=entities, events=events))


def remove(*keys: Key) -> Write:
    return Write(keys, lambda found, removed: Decision("removed", remove=keys))


def look(*keys: Key) -> Write:
    return Write(keys, lambda found, removed: Decision((list(found), list(removed))))


def event(key: str, id: str, topic: str = "entity.changed") -> Event:
    return Event(topic, key, "user.updated", id, 1_700_000_000.5, b'{"a":1}', subject="someone")


async def records_of(backend: Backend, topic: str = "entity.changed") -> list[Record]:
    starts = await backend.event_log.start_offsets(topic)
    return await backend.event_log.fetch(starts, 1000)


async def test_what_was_put_is_read_as_it_was(backend: Backend) -> None:
    entity = user(ADA, 1, body='{"name":"Zoë \\u0000"}'.encode())
    assert await backend.entities.transact([put(entity)]) == ["put"]
    assert await backend.entities.read([ADA]) == [entity]


async def test_reads_keep_the_order_and_the_repetitions_of_their_keys(backend: Backend) -> None:
    await backend.entities.transact([put(user(ADA, 1)), put(user(BOB, 1))])
    found = await backend.entities.read([BOB, Key("user", "nobody"), ADA, BOB, Key("webhook", "ada")])
    assert [entity and entity.id for entity in found] == ["bob", None, "ada", "bob", None]


async def test_many_keys_are_one_query(backend: Backend) -> None:
    keys = [Key("user", f"u{n}") for n in range(200)]
    await backend.entities.transact([put(*(user(key, 1) for key in keys))])
    backend.queries.clear()
    assert [entity and entity.key for entity in await backend.entities.read(keys)] == keys
    assert backend.queries == ["read"]


async def test_no_key_is_no_query(backend: Backend) -> None:
    assert await backend.entities.read([]) == []
    assert backend.queries == []


async def test_more_keys_than_one_query_takes_are_all_read(backend: Backend) -> None:
    keys = [Key("user", f"u{n}") for n in range(700)]
    await backend.entities.transact([put(*(user(key, 1) for key in keys))])
    assert [entity and entity.key for entity in await backend.entities.read(keys)] == keys


@pytest.mark.parametrize("id", ["a\0b", "a'b", '"', "%", "ä\u0301😀", ""])
async def test_an_id_is_matched_whole_and_exactly(backend: Backend, id: str) -> None:
    decoys = [Key("user", other) for other in ("a", "A", "a'", "ä")]
    await backend.entities.transact([put(user(key, 1)) for key in decoys])
    assert await backend.entities.read([Key("user", id)]) == [None]
    await backend.entities.transact([put(user(Key("user", id), 1))])
    (found,) = await backend.entities.read([Key("user", id)])
    assert found is not None
    assert found.id == id
    assert [entity.id for entity in await backend.entities.scan("user", "", 50)] == sorted(
        {id, *(key.id for key in decoys)} - {""}
    )


async def test_a_write_sees_those_before_it_in_its_batch(backend: Backend) -> None:
    outcomes = await backend.entities.transact([put(user(ADA, 1)), look(ADA, BOB)])
    assert outcomes[1] == ([user(ADA, 1), None], [0, 0])


async def test_a_refused_write_leaves_nothing_and_its_neighbours_stay(backend: Backend) -> None:
    def refuse(found: Sequence[Entity | None], removed: Sequence[int]) -> Decision:
        raise Refused("no")

    outcomes = await backend.entities.transact([put(user(ADA, 1)), Write((ADA,), refuse), put(user(BOB, 1))])
    assert [outcomes[0], outcomes[2]] == ["put", "put"]
    assert isinstance(outcomes[1], Refused)
    assert outcomes[1].error == "no"
    assert await backend.entities.read([ADA, BOB]) == [user(ADA, 1), user(BOB, 1)]


async def test_a_decision_that_fails_costs_its_own_write_alone(backend: Backend) -> None:
    def fail(found: Sequence[Entity | None], removed: Sequence[int]) -> Decision:
        raise ZeroDivisionError

    outcomes = await backend.entities.transact([put(user(ADA, 1)), Write((ADA,), fail), put(user(BOB, 1))])
    assert isinstance(outcomes[1], ZeroDivisionError)
    assert await backend.entities.read([ADA, BOB]) == [user(ADA, 1), user(BOB, 1)]


async def test_a_decision_that_cannot_be_stored_is_undone_whole(backend: Backend) -> None:
    """The second entity would go back a version; the first, and the event, must not stay either."""
    await backend.entities.transact([put(user(BOB, 3))])
    half = put(user(ADA, 1), user(BOB, 2), events=(event("ada", "e1"),))
    outcomes = await backend.entities.transact([half, put(user(Key("user", "eve"), 1), events=(event("eve", "e2"),))])
    assert isinstance(outcomes[0], ValueError)
    assert outcomes[1] == "put"
    assert await backend.entities.read([ADA, BOB]) == [None, user(BOB, 3)]
    assert [from_record(record).id for record in await records_of(backend)] == ["e2"]


async def test_an_event_that_cannot_be_encoded_undoes_its_write(backend: Backend) -> None:
    outcomes = await backend.entities.transact([put(user(ADA, 1), events=(event("\ud800", "e1"),)), put(user(BOB, 1))])
    assert isinstance(outcomes[0], UnicodeEncodeError)
    assert await backend.entities.read([ADA, BOB]) == [None, user(BOB, 1)]


async def test_events_are_in_the_log_in_the_order_of_their_writes(backend: Backend) -> None:
    sent = [event("ada", f"e{n}") for n in range(5)]
    await backend.entities.transact(
        [put(user(ADA, 1), events=tuple(sent[:2])), put(user(ADA, 2), events=tuple(sent[2:]))]
    )
    assert [from_record(record) for record in await records_of(backend)] == sent


async def test_the_stores_and_the_logs_appends_share_offsets(backend: Backend) -> None:
    await backend.entities.transact([put(user(ADA, 1), events=(event("k", "e1"),))])
    await backend.event_log.append([to_record(event("k", "e2"))], durable=False)
    await backend.entities.transact([put(user(ADA, 2), events=(event("k", "e3"),))])
    records = await records_of(backend)
    assert [(record.offset, from_record(record).id) for record in records] == [(0, "e1"), (1, "e2"), (2, "e3")]


async def test_a_removal_takes_a_version(backend: Backend) -> None:
    await backend.entities.transact([put(user(ADA, 4)), remove(ADA)])
    assert await backend.entities.read([ADA]) == [None]
    assert await backend.entities.transact([look(ADA)]) == [([None], [5])]


@pytest.mark.parametrize("version", [1, 4, 5])
async def test_nothing_comes_back_with_a_version_it_had(backend: Backend, version: int) -> None:
    await backend.entities.transact([put(user(ADA, 4)), remove(ADA)])
    (outcome,) = await backend.entities.transact([put(user(ADA, version))])
    assert isinstance(outcome, ValueError)
    assert await backend.entities.transact([put(user(ADA, 6))]) == ["put"]


async def test_removing_what_is_absent_changes_nothing(backend: Backend) -> None:
    await backend.entities.transact([put(user(ADA, 1)), remove(ADA), remove(ADA), remove(BOB)])
    assert await backend.entities.transact([look(ADA, BOB)]) == [([None, None], [2, 0])]


async def test_an_expired_entity_is_absent_to_reads_scans_and_writes(backend: Backend) -> None:
    entity = user(ADA, 2, expires_at=backend.clock.now + 60)
    await backend.entities.transact([put(entity)])
    assert await backend.entities.read([ADA]) == [entity]
    backend.clock.now += 60
    assert await backend.entities.read([ADA]) == [None]
    assert await backend.entities.scan("user", "", 10) == []
    assert await backend.entities.transact([look(ADA)]) == [([None], [2])]


async def test_purging_takes_the_longest_expired_first_and_forgets_them(backend: Backend) -> None:
    now = backend.clock.now
    expiring = [user(Key("token", f"t{n}"), 1, expires_at=now + n) for n in range(1, 5)]
    await backend.entities.transact([put(*expiring, user(ADA, 1))])
    assert await backend.entities.purge_expired(now + 3, 2) == 2
    assert await backend.entities.purge_expired(now + 3, 2) == 1
    assert await backend.entities.purge_expired(now + 3, 2) == 0
    keys = [entity.key for entity in expiring]
    assert [entity and entity.id for entity in await backend.entities.read([*keys, ADA])] == [
        None,
        None,
        None,
        "t4",
        "ada",
    ]
    assert await backend.entities.transact([look(keys[0])]) == [([None], [0])]


async def test_scans_page_by_id_within_a_kind(backend: Backend) -> None:
    ids = ["a", "b", "c", "d", "e"]
    await backend.entities.transact([put(user(Key("user", id), 1, b'{"n":1}')) for id in reversed(ids)])
    await backend.entities.transact([put(user(Key("webhook", "bb"), 1)), remove(Key("user", "c"))])
    first = await backend.entities.scan("user", "", 2)
    assert first == [user(Key("user", "a"), 1, b'{"n":1}'), user(Key("user", "b"), 1, b'{"n":1}')]
    assert [entity.id for entity in await backend.entities.scan("user", first[-1].id, 10)] == ["d", "e"]
    assert await backend.entities.scan("user", "e", 10) == []


async def test_bodies_of_any_bytes_survive_a_scan(backend: Backend) -> None:
    body = bytes(range(256))
    await backend.entities.transact([put(user(ADA, 1, body))])
    assert [entity.body for entity in await backend.entities.scan("user", "", 1)] == [body]


async def test_every_call_counts_as_one_query(backend: Backend) -> None:
    await backend.entities.transact([put(user(ADA, 1)), put(user(BOB, 1))])
    await backend.entities.read([ADA, BOB])
    await backend.entities.scan("user", "", 10)
    assert backend.queries == ["transact", "read", "scan"]
