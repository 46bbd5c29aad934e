"""Any history of an event log agrees with plain lists."""

from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.ports.event_log import Topic
from backends.ports.events import NewRecord
from tests.backends.conftest import OpenBackend

DAY = 86400.0

OPERATIONS = st.one_of(
    st.tuples(st.just("append"), st.lists(st.tuples(st.sampled_from(["t", "u"]), st.binary(max_size=2)), max_size=5)),
    st.tuples(st.just("drop"), st.integers(0, 2), st.integers(0, 6)),
    st.tuples(st.just("purge"), st.integers(1, 4)),
    st.tuples(st.just("wait"), st.floats(0, DAY)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(OPERATIONS, max_size=12), st.integers(1, 9))
def test_any_history_agrees_with_lists(open_backend: OpenBackend, history: list[tuple[Any, ...]], limit: int) -> None:
    """A log is, per partition, a list that only loses elements; offsets are never given twice."""

    async def run() -> None:
        async with open_backend() as backend:
            log = backend.event_log
            await log.ensure_topics([Topic("t", 3, DAY), Topic("u", 1, None)])
            model: dict[tuple[str, int], dict[int, tuple[bytes, float]]] = {
                ("t", 0): {},
                ("t", 1): {},
                ("t", 2): {},
                ("u", 0): {},
            }
            ends = dict.fromkeys(model, 0)
            for operation in history:
                match operation:
                    case ("append", records):
                        new = [NewRecord(topic, key, key) for topic, key in records]
                        places = await log.append(new, durable=False)
                        for (topic, key), (p, offset) in zip(records, places, strict=True):
                            assert offset == ends[topic, p]
                            ends[topic, p] += 1
                            model[topic, p][offset] = (key, backend.clock.now)
                    case ("drop", p, offset):
                        assert await log.drop(("t", p), [offset]) == (offset in model["t", p])
                        model["t", p].pop(offset, None)
                    case ("purge", most):
                        now = backend.clock.now
                        deleted = await log.purge(now, most)
                        assert deleted <= most
                        for p in range(3):
                            start = (await log.start_offsets("t"))["t", p]
                            gone = [offset for offset in model["t", p] if offset < start]
                            assert all(model["t", p][offset][1] <= now - DAY + 0.001 for offset in gone)
                            deleted -= len(gone)
                            for offset in gone:
                                del model["t", p][offset]
                        assert deleted == 0
                    case ("wait", seconds):
                        backend.clock.now += seconds
            assert {**await log.end_offsets("t"), **await log.end_offsets("u")} == ends
            read: dict[tuple[str, int], dict[int, bytes]] = {partition: {} for partition in model}
            positions = dict.fromkeys(model, 0)
            while fetched := await log.fetch(positions, limit):
                assert len(fetched) <= limit
                for r in fetched:
                    assert r.offset >= positions[r.topic, r.partition]
                    positions[r.topic, r.partition] = r.offset + 1
                    read[r.topic, r.partition][r.offset] = r.value or b""
            assert read == {p: {offset: key for offset, (key, _) in rows.items()} for p, rows in model.items()}

    trio.run(run)
