"""Any history of an entity store agrees with a dict, and the log with what was committed."""

from collections.abc import Sequence
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.ports.cloudevents import from_record
from backends.ports.entities import Decision, Entity, Key, Refused, Write
from tests.backends.conftest import OpenBackend
from tests.backends.test_port_entities import event, records_of, user

IDS = st.sampled_from(["a", "b", "c"])
OPERATIONS = st.one_of(
    st.tuples(st.just("put"), IDS, st.integers(1, 6)),
    st.tuples(st.just("remove"), IDS),
    st.tuples(st.just("refuse"), IDS, st.integers(1, 6)),
    st.tuples(st.just("pair"), IDS, IDS, st.integers(1, 6)),
)


class Model:
    """The store as a dict: versions seen, living ids, and the ids of events of what was committed."""

    def __init__(self) -> None:
        self.version: dict[str, int] = {}
        self.living: dict[str, int] = {}
        self.events: list[str] = []

    def allows(self, id: str, version: int) -> bool:
        known = self.version.get(id, 0)
        return version > known or (version == known and id in self.living)

    def put(self, id: str, version: int) -> None:
        self.version[id] = self.living[id] = version

    def remove(self, id: str) -> None:
        if self.living.pop(id, None) is not None:
            self.version[id] += 1


def model_write(model: Model, operation: tuple[Any, ...], number: int) -> tuple[Write, str]:
    """The write of *operation*, and the outcome the model expects of it (which it then has had)."""
    kind, id, *rest = operation
    mark = (event(id, f"e{number}"),)
    key = Key("user", id)
    if kind == "remove":
        model.remove(id)
        model.events.append(f"e{number}")
        return Write((key,), lambda f, r: Decision("ok", remove=(key,), events=mark)), "ok"
    if kind == "refuse":

        def refuse(found: Sequence[Entity | None], removed: Sequence[int]) -> Decision:
            raise Refused("no")

        return Write((key,), refuse), "refused"
    puts = [(id, rest[-1])] if kind == "put" else [(id, rest[-1]), (rest[0], rest[-1])]
    entities = tuple(user(Key("user", other), version) for other, version in puts)
    write = Write(tuple(e.key for e in entities), lambda f, r: Decision("ok", put=entities, events=mark))
    if not all(model.allows(*wanted) for wanted in puts):
        return write, "failed"
    for wanted in puts:
        model.put(*wanted)
    model.events.append(f"e{number}")
    return write, "ok"


def outcome_of(value: Any) -> str:
    if isinstance(value, Refused):
        return "refused"
    return "failed" if isinstance(value, Exception) else str(value)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(OPERATIONS, min_size=1, max_size=4), max_size=8))
def test_any_history_agrees_with_a_dict(open_backend: OpenBackend, history: list[list[tuple[Any, ...]]]) -> None:
    async def run() -> None:
        model = Model()
        number = 0
        async with open_backend() as backend:
            for batch in history:
                expected, writes = [], []
                for operation in batch:
                    number += 1
                    write, outcome = model_write(model, operation, number)
                    writes.append(write)
                    expected.append(outcome)
                assert [outcome_of(o) for o in await backend.entities.transact(writes)] == expected
                found = await backend.entities.read([Key("user", id) for id in "abc"])
                assert {entity.id: entity.version for entity in found if entity} == model.living
            scanned = await backend.entities.scan("user", "", 10)
            assert {entity.id: entity.version for entity in scanned} == model.living
            ids = [from_record(record).id for record in await records_of(backend)]
            assert ids == model.events

    trio.run(run)
