"""What an operator does with dead letters, over the real `event_log` actor on a log in memory."""

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from actors.consumers.dead_letters import DELIVERY, REPLAYS, dead_letter, describe, replay_record
from actors.consumers.failure import Failure
from actors.consumers.notification.messages import Reset
from actors.event_log.actor import EventLogActor
from actors.metrics import Metrics
from actors.runtime import Actor, Child, Mailbox, Supervisor, System, open_system
from backends.ports.entities import StoreUnavailable
from backends.ports.event_log import Attempt, Topic
from backends.ports.events import NewRecord, Record
from gateway.admin.dead_letter_operations import TOGETHER, DeadLetterOperations
from gateway.admin.operations import OperationError, Operations
from tests.actors.memory_log import MemoryLog

SEARCH, AUDIT = "entity.changed.search.dlt", "audit.audit.dlt"
TOPICS = [Topic(SEARCH, 2, None), Topic(AUDIT, 1, None), Topic("entity.changed", 2, None)]


def letter(
    id: str,
    *,
    group: str = "search",
    type: str = "user.created",
    error: str = "OSError",
    message: str = "no",
    replays: int = 0,
    delivery: str = "",
    partition: int = 0,
    at: float = 10.0,
) -> NewRecord:
    headers = (("ce_id", id.encode()), ("ce_type", type.encode()), (REPLAYS, struct.pack(">i", replays)))
    original = Record("entity.changed" if group == "search" else "audit", 1, 5, 7, b"k", b'{"id": 1}', headers)
    made = dead_letter(
        original, group=group, failure=Failure(error, message), attempt=Attempt(3, 0, at, at + 5, ""), service="w",
        delivery_id=delivery,
    )  # fmt: skip
    return msgspec.structs.replace(made, partition=partition)


class FakeDeliveries(Actor[Any]):
    def __init__(self, dead: set[str]) -> None:
        self._dead = dead

    async def handle(self, message: Any) -> bool | None:
        if not isinstance(message, Reset):
            return None
        known = message.id in self._dead
        self._dead.discard(message.id)
        return known


class Desk:
    """The operations, and what they work on."""

    def __init__(self, system: System, log: MemoryLog, dead: set[str]) -> None:
        self.log, self.dead_deliveries = log, dead
        letters = DeadLetterOperations(system.ref, ("audit", "notification", "search"))
        self._operations = Operations(letters.by_name())
        self.progress: list[tuple[int, int]] = []

    async def call(self, name: str, **arguments: Any) -> Any:
        return await self._operations.call(
            f"dlq.{name}", arguments, lambda done, total: self.progress.append((done, total))
        )

    async def ids(self, **arguments: Any) -> list[str]:
        return [row["id"] for row in await self.call("list", **arguments)]

    def retried(self, topic: str = "entity.changed.search.retry") -> list[Record]:
        return [r for (name, _), rows in self.log.records.items() if name == topic for r in rows if r is not None]

    async def bury(self, *letters: NewRecord) -> None:
        await self.log.append(letters, durable=True)


@asynccontextmanager
async def open_desk() -> AsyncIterator[Desk]:
    log, dead = MemoryLog(), set[str]()
    children = {
        "event_log": partial(EventLogActor, log, TOPICS, Metrics()),
        "deliveries": partial(FakeDeliveries, dead),
    }
    tree = Supervisor("root", children=[Child(id, make, mailbox=Mailbox(64)) for id, make in children.items()])
    async with open_system(tree) as system:
        yield Desk(system, log, dead)


@pytest.fixture
async def desk(autojump_clock: MockClock) -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


async def test_they_are_listed_oldest_first_with_what_an_operator_decides_by(desk: Desk) -> None:
    await desk.bury(letter("e1"), letter("e2", replays=3, at=20.0), letter("e3", group="audit", partition=0))
    rows = await desk.call("list")
    assert [row["id"] for row in rows] == [f"{AUDIT}/0/0", f"{SEARCH}/0/0", f"{SEARCH}/0/1"]
    assert rows[2] == {
        "id": f"{SEARCH}/0/1",
        "group": "search",
        "type": "user.created",
        "key": "k",
        "event_id": "e2",
        "attempts": 3,
        "replays": 3,
        "quarantined": True,
        "at": "1970-01-01T00:00:25.000Z",
        "reason": "OSError: no",
        "endpoint": "",
    }


async def test_filters_are_joined_and_a_reason_is_any_part_of_the_exception_or_its_message(desk: Desk) -> None:
    await desk.bury(
        letter("e1", message="connection refused"),
        letter("e2", type="user.deleted", message="Connection reset"),
        letter("e3", error="ValueError", message="bad"),
        letter("e4", group="audit", message="connection refused"),
    )
    assert await desk.ids(reason="CONNECTION") == [f"{AUDIT}/0/0", f"{SEARCH}/0/0", f"{SEARCH}/0/1"]
    assert await desk.ids(reason="valueerr") == [f"{SEARCH}/0/2"]
    assert await desk.ids(group="search", reason="connection", type="user.deleted") == [f"{SEARCH}/0/1"]
    assert await desk.ids(group="notification") == []


async def test_reasons_are_counted_by_group_type_and_exception_the_commonest_first(desk: Desk) -> None:
    await desk.bury(
        *(letter(f"a{n}", message=f"no {n}", at=100.0 - n) for n in range(4)),
        *(letter(f"b{n}", error="ValueError") for n in range(2)),
        letter("c", group="audit", type="audit"),
    )
    reasons = await desk.call("reasons")
    assert [(r["count"], r["group"], r["type"], r["exception"]) for r in reasons] == [
        (4, "search", "user.created", "OSError"),
        (2, "search", "user.created", "ValueError"),
        (1, "audit", "audit", "OSError"),
    ]
    assert (reasons[0]["first"], reasons[0]["last"]) == ("1970-01-01T00:01:37.000Z", "1970-01-01T00:01:45.000Z")
    assert [r["count"] for r in await desk.call("reasons", group="audit")] == [1]


async def test_a_group_that_does_not_exist_is_not_a_group_without_dead_letters(desk: Desk) -> None:
    await desk.log.commit("billing", {("entity.changed", 0): 1})
    for operation in ("list", "reasons", "replay", "drop"):
        everything = {"everything": True} if operation in ("replay", "drop") else {}
        with pytest.raises(OperationError, match=r"no consumer group 'serach'; there are: audit, billing, .*, search"):
            await desk.call(operation, group="serach", **everything)
    assert await desk.ids(group="billing") == []


async def test_one_is_shown_with_payload_and_history(desk: Desk) -> None:
    await desk.bury(letter("e1", replays=1, at=10.0))
    shown = await desk.call("show", id=f"{SEARCH}/0/0")
    assert shown["value"] == {"id": 1}
    history = ("first_failure", "last_failure", "attempts", "replay_count", "quarantined", "origin")
    assert [shown[name] for name in history] == [
        "1970-01-01T00:00:10.000Z", "1970-01-01T00:00:15.000Z", 3, 1, False, "entity.changed/1/5"
    ]  # fmt: skip
    assert shown["headers"] == {"ce_id": "e1", "ce_type": "user.created"}
    with pytest.raises(OperationError, match=r"dlt/0/7: there is no such dead letter"):
        await desk.call("show", id=f"{SEARCH}/0/7")


async def test_a_replay_is_republished_to_its_groups_retry_topic_counted_and_dropped(desk: Desk) -> None:
    await desk.bury(letter("e1"), letter("e2", partition=1), letter("e3", group="audit"))
    report = await desk.call("replay", ids=[f"{SEARCH}/0/0", f"{SEARCH}/1/0"])
    assert (report["count"], report["refused"], report["quarantined"]) == (2, [], [])
    again = desk.retried()
    assert [(r.key, r.value) for r in again] == [(b"k", b'{"id": 1}')] * 2
    assert [describe(r).replay_count for r in again] == [1, 1]
    assert await desk.ids() == [f"{AUDIT}/0/0"]
    assert desk.log.appends[-1] == (2, True), "one append for both, and durable before they are dropped"


async def test_a_log_that_refuses_the_republish_keeps_the_dead_letters(desk: Desk) -> None:
    await desk.bury(letter("e1"))
    kept = desk.log.append

    async def refuse(*_: Any, **__: Any) -> Any:
        raise ValueError("too large")

    desk.log.append = refuse  # type: ignore[method-assign]
    with pytest.raises(OperationError, match="too large"):
        await desk.call("replay", everything=True)
    desk.log.append = kept  # type: ignore[method-assign]
    assert await desk.ids() == [f"{SEARCH}/0/0"]


async def test_a_log_that_goes_away_between_republish_and_drop_loses_none(desk: Desk) -> None:
    await desk.bury(letter("e1"), letter("e2"))
    kept = desk.log.drop

    async def away(*_: Any) -> int:
        raise StoreUnavailable("away")

    desk.log.drop = away  # type: ignore[method-assign]
    with pytest.raises(OperationError, match="away"):
        await desk.call("replay", everything=True)
    desk.log.drop = kept  # type: ignore[method-assign]
    assert len(await desk.ids()) == 2
    assert (await desk.call("replay", everything=True))["count"] == 2
    assert [dict(r.headers)["ce_id"] for r in desk.retried()] == [b"e1", b"e2", b"e1", b"e2"], "twice, under their ids"


async def test_what_was_replayed_three_times_is_quarantined_until_it_is_forced(desk: Desk) -> None:
    await desk.bury(letter("e1", replays=2), letter("e2", replays=3), letter("e3", replays=4))
    report = await desk.call("replay", everything=True)
    assert (report["count"], report["quarantined"]) == (1, [f"{SEARCH}/0/1", f"{SEARCH}/0/2"])
    assert await desk.ids() == [f"{SEARCH}/0/1", f"{SEARCH}/0/2"]
    assert (await desk.call("replay", everything=True, force=True))["count"] == 2
    assert [describe(r).replay_count for r in desk.retried()] == [3, 4, 5]


async def test_a_replay_that_fails_again_comes_back_with_its_count_until_it_is_quarantined(desk: Desk) -> None:
    await desk.bury(letter("e1"))
    for replays in range(3):
        assert (await desk.call("replay", everything=True))["count"] == 1
        again = desk.retried()[-1]
        failed = dead_letter(
            again, group="search", failure=Failure("OSError", "no"), attempt=Attempt(3, 0, 1, 1, ""), service="w"
        )
        await desk.bury(failed)
        (row,) = await desk.call("list")
        assert (row["replays"], row["quarantined"]) == (replays + 1, replays == 2)
    assert (await desk.call("replay", everything=True))["count"] == 0


async def test_an_exhausted_delivery_is_reset_by_its_row_and_republishes_nothing(desk: Desk) -> None:
    desk.dead_deliveries |= {"d1"}
    await desk.bury(letter("e1", delivery="d1"), letter("e2", delivery="d2"))
    report = await desk.call("replay", everything=True)
    assert report["count"] == 1
    assert report["refused"] == [{"id": f"{SEARCH}/0/1", "why": "its delivery d2 is not dead (any more); drop it"}]
    assert desk.retried() == []
    assert desk.dead_deliveries == set()
    assert await desk.ids() == [f"{SEARCH}/0/1"]


async def test_a_dry_run_says_what_it_would_do_and_does_nothing(desk: Desk) -> None:
    desk.dead_deliveries |= {"d1"}
    await desk.bury(letter("e1"), letter("e2", replays=3), letter("e3", delivery="d1"))
    report = await desk.call("replay", everything=True, dry_run=True)
    assert report["ids"] == [f"{SEARCH}/0/0", f"{SEARCH}/0/2"]
    assert report["quarantined"] == [f"{SEARCH}/0/1"]
    assert (await desk.call("drop", everything=True, dry_run=True))["count"] == 3
    assert len(await desk.ids()) == 3
    assert desk.retried() == []
    assert desk.dead_deliveries == {"d1"}


async def test_dropped_is_gone_and_filters_spare_the_rest(desk: Desk) -> None:
    await desk.bury(letter("e1"), letter("e2", error="ValueError"), letter("e3", group="audit"))
    assert (await desk.call("drop", everything=True, group="search", reason="ValueError"))["count"] == 1
    assert (await desk.call("drop", ids=[f"{AUDIT}/0/0", f"{AUDIT}/0/0"]))["count"] == 1
    assert await desk.ids() == [f"{SEARCH}/0/0"]


@pytest.mark.parametrize("operation", ["replay", "drop"])
async def test_one_that_is_gone_meanwhile_is_told_and_the_others_are_done(desk: Desk, operation: str) -> None:
    await desk.bury(letter("e1"))
    report = await desk.call(operation, ids=[f"{SEARCH}/0/9", f"{SEARCH}/0/0"])
    assert report["count"] == 1
    assert [refused["id"] for refused in report["refused"]] == [f"{SEARCH}/0/9"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give ids, or `everything`"),
        ({"ids": [f"{SEARCH}/0/0"], "everything": True}, "give ids, or `everything`"),
        ({"ids": [f"{SEARCH}/0/0"], "group": "search"}, "filters go with"),
        ({"ids": [f"{SEARCH}/0/0", "nonsense"]}, "'nonsense' is not the id"),
        ({"everything": True, "rate": 0.0}, "a rate is above 0"),
        ({"everything": True, "rate": float("nan")}, "a rate is above 0"),
    ],
)
async def test_an_order_that_contradicts_itself_does_nothing(
    desk: Desk, arguments: dict[str, Any], message: str
) -> None:
    await desk.bury(letter("e1"))
    with pytest.raises(OperationError, match=message):
        await desk.call("replay", **arguments)
    assert len(await desk.ids()) == 1


async def test_a_rate_is_kept(desk: Desk) -> None:
    await desk.bury(*(letter(f"e{n}") for n in range(100)))
    begun = trio.current_time()
    assert (await desk.call("replay", everything=True, rate=20.0))["count"] == 100
    # The last two go at 4.9 s: a batch is sent when those before it have had their time.
    assert 4.5 <= trio.current_time() - begun <= 5.1


async def test_ten_thousand_leave_none_and_cost_messages_by_the_page(desk: Desk) -> None:
    many = 10_000
    await desk.bury(*(letter(f"e{n}", partition=n % 2) for n in range(many)))
    fetches, appends = desk.log.fetches, len(desk.log.appends)
    assert (await desk.call("replay", everything=True))["count"] == many
    assert await desk.ids() == []
    assert len({dict(r.headers)["ce_id"] for r in desk.retried()}) == many == len(desk.retried())
    assert len(desk.log.appends) - appends == many / TOGETHER
    assert desk.log.fetches - fetches <= 2 * many / TOGETHER
    assert desk.progress[-1] == (many, many)
    assert desk.progress == sorted(desk.progress)


async def test_holes_between_them_are_skipped_by_the_page(desk: Desk) -> None:
    await desk.bury(*(letter(f"e{n}") for n in range(1000)))
    await desk.call("drop", ids=[f"{SEARCH}/0/{n}" for n in range(1000) if n % 7])
    fetches = desk.log.fetches
    left = await desk.ids()
    assert len(left) == 143
    assert (await desk.call("replay", ids=left))["count"] == 143
    assert desk.log.fetches - fetches <= 10


async def test_a_record_that_is_no_dead_letter_of_ours_is_refused_and_stays(desk: Desk) -> None:
    await desk.bury(NewRecord(SEARCH, b"k", b"v", (), 0), letter("e1"))
    report = await desk.call("replay", everything=True)
    assert report["count"] == 1
    (refused,) = report["refused"]
    assert "does not say which topic and group" in refused["why"]
    assert (await desk.call("drop", everything=True))["count"] == 1


ORDERS = st.lists(
    st.one_of(
        st.tuples(st.just("bury"), st.integers(0, 1), st.integers(0, 4)),
        st.tuples(st.just("replay"), st.lists(st.integers(0, 30), min_size=1, max_size=6), st.booleans()),
        st.tuples(st.just("drop"), st.lists(st.integers(0, 30), min_size=1, max_size=6), st.booleans()),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(ORDERS)
def test_every_dead_letter_is_there_or_replayed_or_dropped_and_only_one_of_them(orders: list[Any]) -> None:
    async def run(desk: Desk) -> None:
        there: dict[str, int] = {}
        replayed: list[str] = []
        offsets = [0, 0]
        for kind, first, second in orders:
            if kind == "bury":
                id = f"{SEARCH}/{first}/{offsets[first]}"
                await desk.bury(letter(id, replays=second, partition=first))
                offsets[first] += 1
                there[id] = second
                continue
            ids = [f"{SEARCH}/{n % 2}/{n // 2}" for n in first]
            if kind == "drop":
                report = await desk.call("drop", ids=ids)
                expected = [id for id in dict.fromkeys(ids) if id in there]
            else:
                report = await desk.call("replay", ids=ids, force=second)
                expected = [id for id in dict.fromkeys(ids) if id in there and (second or there[id] < 3)]
                replayed += expected
            assert sorted(report["ids"]) == sorted(expected)
            for id in expected:
                del there[id]
            assert sorted(await desk.ids()) == sorted(there)
        assert sorted(dict(r.headers)["ce_id"].decode() for r in desk.retried()) == sorted(replayed)

    async def opened() -> None:
        async with open_desk() as desk:
            await run(desk)

    trio.run(opened, clock=MockClock(autojump_threshold=0))


def test_the_header_of_a_delivery_is_what_the_consumers_write() -> None:
    record = letter("e1", delivery="d1")
    stored = Record(record.topic, 0, 0, 0, record.key, record.value, record.headers)
    assert dict(record.headers)[DELIVERY] == b"d1"
    with pytest.raises(ValueError, match="reset the delivery"):
        replay_record(stored)
