"""From an event to deliveries: who gets one, under which id, saying what; and the pure parts of sending them."""

import email
import email.policy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.consumers.notification import deliveries_of as rows
from actors.consumers.notification.handler import PAGE, NotificationHandler
from actors.consumers.notification.mail import Mail, MailWriter, compose, mail_of
from actors.consumers.notification.rendering import Templates
from actors.consumers.notification.rules import Rule, default_rules
from actors.consumers.partitions import Delivered
from actors.consumers.retry import Permanent
from backends.ports.entities import Entity
from backends.ports.events import Event, Record
from backends.ports.stores import Delivery
from tests.consumers.fakes import MemoryDeliveries, change, event

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ADA = {"name": "Ada", "email": "ada@example.org", "bio": ""}


def hook(id: str, *events: str, **changes: Any) -> Entity:
    body = {"id": id, "url": "https://x.example/h", "events": events, "secret": SECRET, "created_at": "…", **changes}
    return Entity("webhook", id, 1, 0.0, 0.0, msgspec.json.encode(body))


def delivered(made: Event, offset: int = 7, headers: tuple[tuple[str, bytes], ...] = ()) -> Delivered:
    return Delivered(Record(made.topic, 0, offset, 0, b"u1", made.data, headers), made)


class Fixture:
    def __init__(self, *hooks: Entity, mail: MailWriter | None = None) -> None:
        self.store = MemoryDeliveries()
        self.wakes = 0
        self.hooks = sorted(hooks, key=lambda entity: entity.id)
        self.handler = NotificationHandler(
            self.store,  # type: ignore[arg-type]
            mail or MailWriter(),
            scan=self.scan,
            wake=self.wake,
            now=lambda: 50.0,
        )

    async def scan(self, after: str, limit: int) -> list[Entity]:
        return [entity for entity in self.hooks if entity.id > after][:limit]

    def wake(self) -> None:
        self.wakes += 1

    def of(self, channel: str) -> list[Delivery]:
        return [row for row in self.store.rows.values() if row.channel == channel]


# -- who gets one ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("*", True),
        ("user.*", True),
        ("user.created", True),
        ("user.create", False),
        ("user", False),
        ("use*", False),
        ("users.*", False),
        ("configuration.*", False),
        ("", False),
    ],
)
def test_patterns_are_everything_a_family_or_one_type(pattern: str, matched: bool) -> None:
    assert rows.matches(pattern, "user.created") is matched


async def test_an_event_makes_a_row_for_each_webhook_that_asked_and_one_e_mail() -> None:
    at = Fixture(hook("a", "user.*"), hook("b", "user.deleted"), hook("c", "x", "*"))
    await at.handler.handle([delivered(event("e1", data=change("u1", 1, **ADA)))])
    assert [row.endpoint for row in at.of("webhook")] == ["a", "c"]
    (mail,) = at.of("email")
    assert mail_of(mail).to == "ada@example.org"
    assert {row.source for row in at.store.rows.values()} == {"entity.changed/0/7"}
    assert {row.due_at for row in at.store.rows.values()} == {50.0}
    assert at.wakes == 1


async def test_redelivery_is_a_no_op() -> None:
    at = Fixture(hook("a", "*"))
    batch = [delivered(event("e1", data=change("u1", 1, **ADA)))]
    await at.handler.handle(batch)
    before = dict(at.store.rows)
    await at.handler.handle(batch * 2)
    assert at.store.rows == before


async def test_other_events_and_other_endpoints_have_other_ids() -> None:
    at = Fixture(hook("a", "*"), hook("b", "*"))
    await at.handler.handle([delivered(event(id, data=change("u1", 1, **ADA))) for id in ("e1", "e2")])
    assert len(at.store.rows) == 6
    assert all("." not in id for id in at.store.rows)


async def test_all_pages_of_webhooks_are_read() -> None:
    at = Fixture(*(hook(f"{n:04}", "*") for n in range(2 * PAGE + 1)))
    await at.handler.handle([delivered(event("e1", data=change("u1", 1, **ADA)))])
    assert len(at.of("webhook")) == 2 * PAGE + 1


async def test_a_disabled_webhook_gets_no_row() -> None:
    at = Fixture(hook("a", "*", state="disabled"), hook("b", "*", state="active"))
    await at.handler.handle([delivered(event("e1", data=change("u1", 1, **ADA)))])
    assert [row.endpoint for row in at.of("webhook")] == ["b"]


async def test_a_template_that_fails_keeps_nobody_else_from_being_told() -> None:
    broken = Rule(("user.*",), ("ops@example.org",), Templates().compile("broken.txt", "{{ entity.nickname }}"))
    at = Fixture(hook("a", "*"), mail=MailWriter([broken, *default_rules()]))
    with pytest.raises(Permanent, match=r"template broken\.txt: UndefinedError: .*nickname"):
        await at.handler.handle([delivered(event(id, data=change("u1", 1, **ADA))) for id in ("e1", "e2")])
    assert [mail_of(row).to for row in at.of("email")] == ["ada@example.org"] * 2
    assert len(at.of("webhook")) == 2
    assert at.wakes == 1


async def test_a_malformed_webhook_does_not_stop_the_others() -> None:
    at = Fixture(hook("a", "*", url=5), hook("b", "*"))
    await at.handler.handle([delivered(event("e1", data=change("u1", 1, **ADA)))])
    assert [row.endpoint for row in at.of("webhook")] == ["b"]


async def test_a_configuration_change_goes_to_webhooks_alone() -> None:
    at = Fixture(hook("a", "configuration.*"))
    data = {"kind": "configuration", "id": "k", "version": 1, "entity": [1], "previous": None}
    await at.handler.handle([delivered(event("e1", type="configuration.changed", data=data))])
    (row,) = at.store.rows.values()
    assert msgspec.json.decode(row.payload)["data"] == {"kind": "configuration", "id": "k", "version": 1, "entity": [1]}


async def test_a_replayed_event_is_named_by_its_first_origin() -> None:
    at = Fixture(hook("a", "*"))
    origin = (
        ("kafka_dlt-original-topic", b"entity.changed"),
        ("kafka_dlt-original-partition", (2).to_bytes(4, "big")),
        ("kafka_dlt-original-offset", (40).to_bytes(8, "big")),
    )
    await at.handler.handle([delivered(event("e1", data=change("u1", 1, **ADA)), headers=origin)])
    assert {row.source for row in at.store.rows.values()} == {"entity.changed/2/40"}


async def test_data_that_is_no_json_is_permanent() -> None:
    at = Fixture(hook("a", "*"))
    broken = msgspec.structs.replace(event("e1"), data=b"{")
    with pytest.raises(Permanent):
        await at.handler.handle([delivered(broken)])


def test_the_body_says_what_changed_and_neither_who_nor_from_what() -> None:
    body = rows.webhook_body(event("e1", data=change("u1", 2, previous={"name": "Old"}, **ADA)))
    assert msgspec.json.decode(body) == {
        "type": "user.created",
        "timestamp": "1970-01-01T00:00:01+00:00",
        "data": {"kind": "user", "id": "u1", "version": 2, "entity": {"id": "u1", "version": 2, **ADA}},
    }


# -- e-mails -----------------------------------------------------------------------------------------------


def mail_for(type: str, data: dict[str, Any]) -> Mail | None:
    found = MailWriter().deliveries(event("e1", type=type, data=data), "t/0/0", 0.0).rows
    return mail_of(found[0]) if found else None


def test_each_user_event_has_its_own_text() -> None:
    created = mail_for("user.created", change("u1", 1, **ADA))
    assert created is not None
    assert created.subject == "Welcome, Ada"
    updated = mail_for("user.updated", change("u1", 2, previous={**ADA, "bio": "x", "name": "Eda"}, **ADA))
    assert updated is not None
    assert "name, bio" in updated.body
    deleted = mail_for("user.deleted", change("u1", 2, previous=ADA))
    assert deleted is not None
    assert deleted.to == "ada@example.org"


@pytest.mark.parametrize("address", [None, "", "no-at", "a@x, b@y", "a@x\r\nRCPT TO:<b@y>", "<a@x>", "a b@x", "a@x\n"])
def test_a_user_without_a_usable_address_gets_no_e_mail(address: str | None) -> None:
    assert mail_for("user.created", change("u1", 1, name="Ada", email=address)) is None


@given(st.text(min_size=1))
def test_no_name_can_add_a_header_or_a_recipient(name: str) -> None:
    data = change("u1", 1, name=f"{name}\r\nBcc: evil@x.org\r\n\r\n", email="ada@example.org")
    (row,) = MailWriter().deliveries(event("e1", data=data), "t/0/0", 0.0).rows
    parsed = email.message_from_bytes(compose(row, "weir@example.org").content, policy=email.policy.SMTP)
    assert parsed.get_all("To") == ["ada@example.org"]
    assert parsed["Bcc"] is None
    assert set(parsed.keys()) == {
        *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"),
        *("Content-Type", "Content-Transfer-Encoding", "MIME-Version"),
    }


def test_an_e_mail_is_the_same_on_every_attempt() -> None:
    (row,) = MailWriter().deliveries(event("e1", data=change("u1", 1, **ADA)), "t/0/0", 0.0).rows
    message = compose(row, "weir@example.org")
    parsed = email.message_from_bytes(message.content, policy=email.policy.SMTP)
    assert parsed["Message-ID"] == f"<{row.id}@example.org>"
    assert message == compose(row, "weir@example.org")


@pytest.mark.parametrize("to", ["a@x, b@y", "a@x\r\nBcc: b@y", ""])
def test_a_stored_address_is_judged_once_more(to: str) -> None:
    payload = msgspec.json.encode(Mail(to, "s", "b\n", 0.0))
    row = Delivery(id="d", channel="email", endpoint="smtp/0", event_id="", event_type="", source="", payload=payload)
    with pytest.raises(Permanent):
        compose(row, "weir@example.org")
