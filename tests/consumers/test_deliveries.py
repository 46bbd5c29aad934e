"""The actor that works deliveries off: attempts and waits, dead letters, isolation of endpoints, restarts."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from actors.consumers.dead_letters import describe
from actors.consumers.failure import Failure
from actors.consumers.notification.consumer import NotificationConsumer
from actors.consumers.notification.deliveries import Deliveries
from actors.consumers.notification.endpoint import EndpointDeliveries
from actors.consumers.notification.mail import Mail, MailWriter
from actors.consumers.notification.messages import Backlog, Reset, Waiting, Wake, Work
from actors.consumers.notification.outcomes import Failed, Gone, Outcome, Refused, Sent
from actors.consumers.notification.senders import Senders, Slots
from actors.event_log.messages import Append
from actors.metrics import Metrics
from actors.runtime import Backoff, Child, DynamicSupervisor, Mailbox, Reject
from backends.ports.entities import Entity
from backends.ports.events import Event
from backends.ports.stores import Delivery
from tests.consumers.fakes import (
    OPTIONS,
    FakeStorage,
    MaxJitter,
    MemoryDeliveries,
    MemoryLog,
    change,
    count,
    record,
    running,
)

DLT = "entity.changed.notification.dlt"
ERROR = Failed(Failure("HTTPStatus", "500"))


class Sender:
    """Both senders in one: notes attempts by endpoint, ends them as `outcomes` says (Sent if it says nothing)."""

    def __init__(self) -> None:
        self.attempts: dict[str, list[tuple[float, str]]] = defaultdict(list)
        self.outcomes: dict[str, Outcome | Exception] = {}
        self.hanging: set[str] = set()
        self.delay: dict[str, float] = {}
        self.under_way = self.most = 0

    async def send(self, webhook: Any, delivery: Delivery) -> Outcome:
        self.attempts[delivery.endpoint].append((trio.current_time(), delivery.id))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await trio.sleep(self.delay.get(delivery.endpoint, 0.1))
            if delivery.endpoint in self.hanging:
                await trio.sleep_forever()
        finally:
            self.under_way -= 1
        outcome = self.outcomes.get(delivery.endpoint, Sent())
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def aclose(self) -> None: ...

    def times(self, endpoint: str) -> list[float]:
        return [at for at, _ in self.attempts[endpoint]]


class Mails:
    """The sender of e-mails: the same, for batches."""

    def __init__(self, sender: Sender, batch: int = 2) -> None:
        self.sender = sender
        self.batch = batch
        self.sent: list[list[str]] = []

    async def send(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        self.sent.append([delivery.id for delivery in deliveries])
        return [await self.sender.send(None, delivery) for delivery in deliveries]


class Fixture:
    def __init__(
        self, *rows: Delivery, hooks: Sequence[str] = "abcdef", concurrency: int = 64, max_children: int = 100
    ) -> None:
        self.log, self.store, self.sender, self.metrics = MemoryLog(), MemoryDeliveries(), Sender(), Metrics()
        self.store.rows = {row.id: row for row in rows}
        self.storage = [
            Entity("webhook", id, 1, 0.0, 0.0, msgspec.json.encode({"url": "http://x", "events": ["*"], "secret": "s"}))
            for id in hooks
        ]
        self.published: list[Event] = []
        self.mails = Mails(self.sender)
        self.concurrency = concurrency
        self.max_children = max_children

    def running(self, **more: Any) -> Any:
        given: dict[str, Any] = {"now": trio.current_time, "rng": MaxJitter()}
        slots = Slots(self.concurrency, 2)
        endpoint = partial(
            EndpointDeliveries, self.store, Senders(self.sender, self.mails), slots, metrics=self.metrics, **given
        )
        endpoints = DynamicSupervisor(
            "endpoints",
            Child("endpoint", endpoint, mailbox=Mailbox(16), backoff=Backoff(jitter=0.0)),
            max_children=self.max_children,
            intensity=None,
        )
        storage = partial(FakeStorage, self.storage, self.published)
        deliveries = partial(Deliveries, self.store, **given)
        return running(
            self.log,
            storage=storage,
            storage_reader=storage,
            storage_scans=storage,
            endpoints=endpoints,
            deliveries=deliveries,
            **more,
        )

    def state(self, id: str) -> str:
        return self.store.rows[id].state

    def document(self, id: str) -> Any:
        """The stored webhook."""
        return msgspec.json.decode(next(entity.body for entity in self.storage if entity.id == id))


def row(id: str, endpoint: str = "a", **changes: Any) -> Delivery:
    made = Delivery(
        id=id,
        channel="webhook",
        endpoint=endpoint,
        event_id="e1",
        event_type="user.created",
        source="entity.changed/0/0",
        payload=b'{"type":"user.created"}',
    )
    return msgspec.structs.replace(made, **changes)


async def test_what_is_due_is_sent_once(autojump_clock: MockClock) -> None:
    at = Fixture(row("1"), row("2", "b"), row("later", "c", due_at=5.0))
    async with at.running():
        await trio.sleep(1)
        assert (at.state("1"), at.state("2"), at.state("later")) == ("done", "done", "pending")
        await trio.sleep(5)
    assert at.sender.times("c") == [5.0]
    assert [len(tries) for tries in at.sender.attempts.values()] == [1, 1, 1]
    assert count(at.metrics, "weir_deliveries_total", "webhook", "sent") == 3


async def test_it_says_how_much_is_still_to_be_delivered_since_when_and_to_whom(autojump_clock: MockClock) -> None:
    at = Fixture(row("1"), row("2"), row("slow", "c"), row("later", "d", due_at=90.0, pending_since=0.5))
    at.sender.outcomes["c"] = Failed(Failure("HTTPStatus", "429"), retry_after=60.0)
    async with at.running() as system:
        waiting: Waiting = await system.ref("deliveries").ask(Backlog())
        assert (waiting.deliveries, waiting.endpoints["working"]) == (4, 2)
        await trio.sleep(2)
        endpoints = {"working": 0, "held": 1, "resting": 1}
        assert await system.ref("deliveries").ask(Backlog()) == Waiting(2, 2.0, endpoints)
        shown = next(child for child in system.snapshot()["children"] if child["id"] == "deliveries")
        assert shown["detail"] == {**endpoints, "oldest_s": 2.0}
        at.store.away = True
        with pytest.raises(Reject):
            await system.ref("deliveries").ask(Backlog())


async def test_a_wake_finds_new_rows_at_once(autojump_clock: MockClock) -> None:
    at = Fixture()
    async with at.running() as system:
        await trio.sleep(1)
        await at.store.add([row("1")])
        system.ref("deliveries").try_tell(Wake())
        await trio.sleep(0.01)
        assert at.sender.times("a") == [1.0]


async def test_three_attempts_with_growing_waits_under_one_id_then_a_dead_letter(autojump_clock: MockClock) -> None:
    at = Fixture(row("1"))
    (original,) = at.log.add(record("e1", data=change("u1", 1, name="Ada")))
    at.sender.outcomes["a"] = ERROR
    async with at.running():
        await trio.sleep(60)
    assert at.sender.times("a") == pytest.approx([0.0, 0.6, 1.7])
    assert {id for _, id in at.sender.attempts["a"]} == {"1"}
    assert at.state("1") == "dead"
    (stored,) = at.log.read(DLT)
    letter = describe(stored)
    assert (stored.key, stored.value) == (original.key, original.value)
    assert (letter.origin, letter.group, letter.attempts) == ("entity.changed/0/0", "notification", 3)
    assert (letter.exception, letter.message) == ("HTTPStatus", "500")
    assert (letter.delivery_id, letter.endpoint) == ("1", "a")
    assert count(at.metrics, "weir_dead_letters_total", "notification") == 1


async def test_a_dead_letter_is_made_of_what_is_left_when_the_log_dropped_the_event(autojump_clock: MockClock) -> None:
    at = Fixture(row("1"))
    at.sender.outcomes["a"] = Refused(Failure("HTTPStatus", "410 gone"))
    async with at.running():
        await trio.sleep(1)
    (stored,) = at.log.read(DLT)
    letter = describe(stored)
    assert stored.value == row("1").payload
    assert (letter.event_id, letter.event_type, letter.origin) == ("e1", "user.created", "entity.changed/0/0")
    assert len(at.sender.attempts["a"]) == 1, "a refusal is final"


async def test_a_delivery_is_dead_only_when_its_dead_letter_is_stored(autojump_clock: MockClock) -> None:
    at = Fixture(row("1"), row("2", "b", due_at=20.0))
    at.sender.outcomes["a"] = ERROR
    at.log.refuse.add(Append)
    async with at.running():
        await trio.sleep(30)
        assert (at.state("1"), at.state("2")) == ("pending", "done")
        assert at.log.refused[Append] > 2
    assert count(at.metrics, "weir_dead_letters_total", "notification") == 0
    at.log.refuse.clear()
    async with at.running():
        await trio.sleep(30)
    assert at.state("1") == "dead"
    assert len(at.log.read(DLT)) == 1
    assert len(at.sender.attempts["a"]) == 3, "the restart buried it and did not send it again"


async def test_an_endpoint_that_hangs_delays_no_other(autojump_clock: MockClock) -> None:
    at = Fixture(row("1"), *(row(f"{n}", "b") for n in range(10, 20)))
    at.sender.hanging.add("a")
    async with at.running():
        await trio.sleep(5)
        assert [at.state(f"{n}") for n in range(10, 20)] == ["done"] * 10
        assert at.state("1") == "pending"


async def test_an_endpoint_has_one_attempt_at_a_time_and_all_of_them_are_bounded(autojump_clock: MockClock) -> None:
    rows = [row(f"{endpoint}{n}", endpoint) for endpoint in "abcdef" for n in range(3)]
    at = Fixture(*rows, concurrency=4)
    async with at.running():
        await trio.sleep(5)
    assert {at.state(r.id) for r in rows} == {"done"}
    assert at.sender.most == 4
    for endpoint in "abcdef":
        times = at.sender.times(endpoint)
        assert all(later - earlier >= 0.0999 for earlier, later in pairwise(times))


async def test_retry_after_holds_everything_for_that_endpoint_and_nothing_else(autojump_clock: MockClock) -> None:
    at = Fixture(row("1"), row("2"), row("3", "b"))
    at.sender.outcomes["a"] = Failed(Failure("HTTPStatus", "429"), retry_after=10.0)
    async with at.running():
        await trio.sleep(5)
        assert len(at.sender.attempts["a"]) == 1
        assert at.state("3") == "done"
        at.sender.outcomes.clear()
        await trio.sleep(10)
    assert (at.state("1"), at.state("2")) == ("done", "done")
    assert min(at.sender.times("a")[1:]) == pytest.approx(10.1)


async def test_a_deleted_webhook_gets_nothing_and_makes_no_dead_letter(autojump_clock: MockClock) -> None:
    at = Fixture(row("1"), hooks="b")
    async with at.running():
        await trio.sleep(10)
    assert (at.state("1"), at.store.rows["1"].error) == ("withdrawn", "the webhook was deleted")
    assert not at.sender.attempts
    assert not at.log.read(DLT)


GONE = Gone(Failure("HTTPStatus", "410 no more"))


async def test_410_disables_the_webhook_and_withdraws_what_waits_for_it(autojump_clock: MockClock) -> None:
    at = Fixture(row("1"), row("2"), row("later", due_at=30.0), row("3", "b"))
    at.sender.outcomes["a"] = GONE
    async with at.running():
        await trio.sleep(5)
        assert (at.state("1"), at.state("2"), at.state("later"), at.state("3")) == ("dead", *["withdrawn"] * 2, "done")
        assert at.store.rows["later"].error == "the webhook is disabled"
    assert len(at.sender.attempts["a"]) == 1, "nothing more was sent"
    assert [describe(letter).delivery_id for letter in at.log.read(DLT)] == ["1"], "only what was attempted is dead"
    document = at.document("a")
    assert (document["state"], document["disabled_reason"]) == ("disabled", "HTTPStatus: 410 no more")
    assert document["secret"] == "s", "the rest stays"
    assert count(at.metrics, "weir_deliveries_total", "webhook", "gone") == 1
    assert count(at.metrics, "weir_deliveries_total", "webhook", "withdrawn") == 2


async def test_disabling_is_audited_once(autojump_clock: MockClock) -> None:
    at = Fixture(row("1"))
    at.sender.outcomes["a"] = GONE
    async with at.running():
        await trio.sleep(1)
    (audit,) = at.published
    entry = msgspec.json.decode(audit.data)
    assert (audit.topic, audit.key, entry["action"]) == ("audit", "webhook/a", "webhook.disable")
    assert (entry["subject"], entry["entity"], entry["outcome"]) == ("weir", "webhook/a", "ok")


async def test_a_disabled_webhook_gets_nothing_until_it_is_enabled_again(autojump_clock: MockClock) -> None:
    at = Fixture(row("1"))
    at.sender.outcomes["a"] = GONE
    async with at.running() as system:
        await trio.sleep(1)
        await at.store.add([row("2")])
        system.ref("deliveries").try_tell(Wake())
        await trio.sleep(1)
        assert (at.state("2"), len(at.sender.attempts["a"])) == ("withdrawn", 1)
        at.sender.outcomes.clear()
        body = msgspec.json.encode({**at.document("a"), "state": "active"})
        at.storage[0] = msgspec.structs.replace(at.storage[0], body=body)
        await at.store.add([row("3")])
        assert await system.ref("deliveries").ask(Reset("1"))
        await trio.sleep(1)
    assert (at.state("3"), at.state("1")) == ("done", "done")


async def test_a_webhook_whose_url_changed_meanwhile_stays_active(autojump_clock: MockClock) -> None:
    at = Fixture(row("1"), row("2"))
    at.sender.outcomes["a"] = GONE
    async with at.running():
        await trio.sleep(0.05)  # the first attempt is under way
        body = msgspec.json.encode({**at.document("a"), "url": "http://new"})
        at.storage[0] = msgspec.structs.replace(at.storage[0], body=body)
        await trio.sleep(0.07)
        at.sender.outcomes.clear()
        await trio.sleep(5)
    assert "state" not in at.document("a")
    assert (at.state("1"), at.state("2")) == ("dead", "done")


async def test_an_attempt_in_flight_at_a_crash_is_sent_again_under_the_same_id(autojump_clock: MockClock) -> None:
    at = Fixture(row("1"))
    at.sender.hanging.add("a")
    async with at.running() as system:
        await trio.sleep(1)
        at.sender.hanging.clear()
        system.crash("delivery:a")
        system.ref("delivery:a").try_tell(Work())
        await trio.sleep(5)
    assert [id for _, id in at.sender.attempts["a"]] == ["1", "1"]
    assert at.store.rows["1"].attempts == 1


async def test_a_store_that_is_away_crashes_nothing_and_sends_nothing_twice(autojump_clock: MockClock) -> None:
    at = Fixture(row("1"), row("2", "b", due_at=3.0))
    async with at.running() as system:
        await trio.sleep(0.05)
        at.store.away = True  # the first attempt is under way: its outcome cannot be stored now
        await trio.sleep(60)
        at.store.away = False
        await trio.sleep(60)
        assert next(c for c in system.snapshot()["children"] if c["id"] == "deliveries")["restarts"] == 0
    assert (at.state("1"), at.state("2")) == ("done", "done")
    assert [len(tries) for tries in at.sender.attempts.values()] == [1, 1]


async def test_a_fault_in_a_sender_is_a_failed_attempt(autojump_clock: MockClock) -> None:
    at = Fixture(row("1"), row("2", "b"))
    at.sender.outcomes["a"] = KeyError("a mistake of ours")
    async with at.running() as system:
        await trio.sleep(60)
        assert next(c for c in system.snapshot()["children"] if c["id"] == "deliveries")["restarts"] == 0
    assert (at.state("1"), at.state("2")) == ("dead", "done")
    assert len(at.sender.attempts["a"]) == 3


async def test_a_reset_delivery_starts_anew(autojump_clock: MockClock) -> None:
    at = Fixture(row("1"))
    at.sender.outcomes["a"] = ERROR
    async with at.running() as system:
        await trio.sleep(10)
        at.sender.outcomes.clear()
        assert await system.ref("deliveries").ask(Reset("1")) is True
        await trio.sleep(0.2)
        assert at.state("1") == "done"
        assert await system.ref("deliveries").ask(Reset("1")) is False


async def test_replays_are_counted_in_the_dead_letter(autojump_clock: MockClock) -> None:
    at = Fixture(row("1"))
    at.sender.outcomes["a"] = ERROR
    async with at.running() as system:
        for _ in range(3):
            await trio.sleep(10)
            assert await system.ref("deliveries").ask(Reset("1"))
        await trio.sleep(10)
    assert [describe(letter).replay_count for letter in at.log.read(DLT)] == [0, 1, 2, 3]


async def test_the_dead_letter_of_an_e_mail_names_the_address(autojump_clock: MockClock) -> None:
    payload = msgspec.json.encode(Mail("ada@example.org", "s", "b\n", 0.0))
    at = Fixture(row("1", "smtp/3", channel="email", payload=payload))
    at.sender.outcomes["smtp/3"] = ERROR
    async with at.running():
        await trio.sleep(10)
    assert describe(at.log.read(DLT)[0]).endpoint == "ada@example.org"


async def test_an_event_reaches_its_receivers_through_consumer_and_deliveries(autojump_clock: MockClock) -> None:
    at = Fixture()
    consumer = partial(
        NotificationConsumer,
        at.store,
        MailWriter(),
        metrics=at.metrics,
        options=OPTIONS,
        now=trio.current_time,
        rng=MaxJitter(),
    )
    at.log.add(record("e1", data=change("u1", 1, name="Ada", email="ada@example.org")))
    async with at.running(notification=consumer):
        await trio.sleep(1)
    assert set(at.sender.attempts) >= set("abcdef")
    assert len(at.sender.attempts) == 7, "and the e-mail"
    assert {r.state for r in at.store.rows.values()} == {"done"}
    assert at.log.committed["notification", ("entity.changed", 0)] == 1


async def test_e_mails_of_one_lane_are_sent_and_stored_in_batches_in_order(autojump_clock: MockClock) -> None:
    at = Fixture(*(row(f"{n}", "smtp/3", channel="email", due_at=n / 10 - 1) for n in range(5)))
    async with at.running():
        await trio.sleep(10)
    assert [id for sent in at.mails.sent for id in sent] == list("01234")
    assert max(map(len, at.mails.sent)) == 2
    assert {r.state for r in at.store.rows.values()} == {"done"}


async def test_one_e_mail_that_cannot_be_sent_costs_the_others_of_its_batch_nothing(autojump_clock: MockClock) -> None:
    at = Fixture(row("1", "smtp/3", channel="email"), row("2", "smtp/3", channel="email"))

    async def send(deliveries: Sequence[Delivery]) -> list[Outcome]:
        return [Refused(Failure("Permanent", "no address")) if d.id == "1" else Sent() for d in deliveries]

    at.mails.send = send  # type: ignore[method-assign]
    async with at.running():
        await trio.sleep(1)
    assert (at.state("1"), at.state("2")) == ("dead", "done")
    assert len(at.log.read(DLT)) == 1


async def test_the_actor_of_an_endpoint_goes_home_after_a_rest_and_comes_back(autojump_clock: MockClock) -> None:
    at = Fixture(row("1"), row("2", due_at=100.0))
    async with at.running() as system:
        await trio.sleep(30)
        assert system.dynamic("endpoints").children() == ["delivery:a"]
        await trio.sleep(40)
        assert system.dynamic("endpoints").children() == []
        await trio.sleep(40)
        assert at.state("2") == "done"


async def test_with_more_endpoints_than_may_work_at_once_each_gets_its_turn(autojump_clock: MockClock) -> None:
    at = Fixture(*(row(endpoint, endpoint) for endpoint in "abcdef"), max_children=2)
    async with at.running():
        await trio.sleep(400)
    assert {r.state for r in at.store.rows.values()} == {"done"}


async def test_a_crash_of_deliveries_leaves_the_endpoints_at_work(autojump_clock: MockClock) -> None:
    at = Fixture(row("1"), row("2"), row("3", "b"))
    async with at.running() as system:
        await trio.sleep(0.05)
        system.crash("deliveries")
        system.ref("deliveries").try_tell(Wake())
        await trio.sleep(10)
    assert {r.state for r in at.store.rows.values()} == {"done"}
    assert {name: len(tries) for name, tries in at.sender.attempts.items()} == {"a": 2, "b": 1}


async def test_any_number_of_endpoints_that_hang_holds_up_no_other_for_long(autojump_clock: MockClock) -> None:
    hanging = [f"dead{n}" for n in range(20)]
    at = Fixture(*(row(name, name) for name in hanging), hooks=[*hanging, "well"], concurrency=4)
    for name in hanging:
        at.sender.outcomes[name] = ERROR
    at.sender.delay = dict.fromkeys(hanging, 15.0)
    async with at.running() as system:
        await trio.sleep(15.0 * 20 / 4 + 1)  # each has had its first attempt, and failed
        await at.store.add([row(f"w{n}", "well") for n in range(5)])
        system.ref("deliveries").try_tell(Wake())
        await trio.sleep(2)
        assert [at.state(f"w{n}") for n in range(5)] == ["done"] * 5
