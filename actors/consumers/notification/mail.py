"""E-mails: which ones an event causes, and how a stored one becomes a message. Pure.

Names come from users: nothing of them can add a header or a recipient, because control characters are removed here
and `message.py` refuses them again.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from actors.consumers.notification.deliveries_of import EMAIL, delivery_id
from actors.consumers.notification.message import Message, Unwritable, is_address, plain_message
from actors.consumers.notification.rules import ENTITY_EMAIL, Rule, changed_fields, default_rules
from actors.consumers.retry import Permanent
from backends.ports.events import Event
from backends.ports.stores import Delivery

LANES = 8
"""At most so many e-mails are on their way to the relay at once. A lane is an endpoint: a relay that hangs
holds up its lanes, and no webhook."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Mail(msgspec.Struct, frozen=True):
    """The payload of an e-mail delivery. `at` is the event's time, Unix seconds: the same on every attempt."""

    to: str
    subject: str
    body: str
    at: float


_mail = msgspec.json.Decoder(Mail)


class Mails(NamedTuple):
    """The e-mails of an event. `failure`: why one or more could not be written; the others are here."""

    rows: list[Delivery]
    failure: Permanent | None = None


class MailWriter:
    """Writes the e-mails that *rules* ask for; None: the default ones."""

    def __init__(self, rules: Sequence[Rule] | None = None) -> None:
        self._rules = default_rules() if rules is None else tuple(rules)

    def deliveries(self, event: Event, source: str, now: float) -> Mails:
        """One row for each address and template that a rule names; a user without a usable address gets none.

        Raises `Permanent` for malformed data.
        """
        rules = [rule for rule in self._rules if rule.wants(event.type)]
        if not rules:
            return Mails([])
        change = _decoded(event)
        changed = changed_fields(change.previous, change.entity)
        values = _values(event, change, changed)
        rows: dict[str, Delivery] = {}
        failure: Permanent | None = None
        for rule in rules:
            if not rule.holds_for(changed):
                continue
            for address in _addresses(rule, values["email"]):
                try:
                    row = _delivery(event, source, now, address, rule, values)
                except Permanent as error:
                    failure = failure or error
                else:
                    rows.setdefault(row.id, row)
        return Mails(list(rows.values()), failure)


class _Change(msgspec.Struct, frozen=True):
    """As `changes.EntityChange`, of any kind of entity: those of a configuration are any JSON value."""

    kind: str
    id: str
    version: int
    entity: Any = None
    previous: Any = None
    subject: str = ""


_change = msgspec.json.Decoder(_Change)


def _decoded(event: Event) -> _Change:
    try:
        return _change.decode(event.data)
    except msgspec.MsgspecError as error:
        raise Permanent(f"event {event.id}: no entity change: {error}") from error


def _values(event: Event, change: _Change, changed: list[str]) -> dict[str, Any]:
    """What templates are given: `rendering.GIVEN`. `name` and `email` are a user's, the latter "" if unusable."""
    document = change.entity or change.previous
    user: dict[str, Any] = document if change.kind == "user" and isinstance(document, dict) else {}
    email = user.get("email")
    address = email if isinstance(email, str) and is_address(email) else ""
    return {
        "type": event.type,
        "at": datetime.fromtimestamp(event.time, UTC),
        "by": change.subject,
        "kind": change.kind,
        "id": change.id,
        "version": change.version,
        "entity": change.entity,
        "previous": change.previous,
        "changed": changed,
        "name": _one_line(user.get("name") or address or change.id),
        "email": address,
    }


def _addresses(rule: Rule, email: str) -> list[str]:
    named = (email if address == ENTITY_EMAIL else address for address in rule.to)
    return [address for address in dict.fromkeys(named) if address]


def _delivery(event: Event, source: str, now: float, address: str, rule: Rule, values: dict[str, Any]) -> Delivery:
    subject, body = rule.template.render(values)
    mail = Mail(address, _one_line(subject), body.strip() + "\n", event.time)
    # An address may get two e-mails about an event, in the words of two templates. The event's own built-in one is
    # not named, as it was not before there were others: an event in flight is not sent twice.
    template = rule.template.name
    endpoint = f"mailto:{address}" if template == event.type else f"mailto:{address}?template={template}"
    return Delivery(
        id=delivery_id(event, endpoint),
        channel=EMAIL,
        endpoint=lane_of(address),
        event_id=event.id,
        event_type=event.type,
        source=source,
        payload=msgspec.json.encode(mail),
        due_at=now,
        pending_since=now,
    )


def lane_of(address: str) -> str:
    """The relay's lane that serves *address*: always the same, so that two e-mails to one do not overtake."""
    return f"smtp/{sum(address.casefold().encode()) % LANES}"


def mail_of(delivery: Delivery) -> Mail:
    """Raises `Permanent` for a payload that is no e-mail."""
    try:
        return _mail.decode(delivery.payload)
    except msgspec.MsgspecError as error:
        raise Permanent(f"delivery {delivery.id} holds no e-mail: {error}") from error


def compose(delivery: Delivery, sender: str) -> Message:
    """The message of *delivery*: the same bytes on every attempt, with a constant Message-ID.

    Raises `Permanent` for an address or a subject that no message can have.
    """
    mail = mail_of(delivery)
    try:
        return plain_message(
            id=delivery.id, sender=sender, to=mail.to, subject=mail.subject, body=mail.body, at=mail.at
        )
    except Unwritable as error:
        raise Permanent(f"delivery {delivery.id} cannot be an e-mail: {error}") from error


def _one_line(text: Any) -> str:
    return _CONTROL.sub(" ", str(text)).strip()[:200]
