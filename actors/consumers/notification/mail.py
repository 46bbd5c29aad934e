"""E-mails: which one an event causes, and how a stored one becomes a message. Pure but for reading the templates.

A template's first line is the subject, the rest the body. Names come from users: nothing of them can add a
header or a recipient, because control characters are removed here and `message.py` refuses them again.
"""

import re
from pathlib import Path
from typing import Any

import jinja2
import msgspec

from actors.consumers.changes import EntityChange, decode_change, kind_of
from actors.consumers.notification.deliveries_of import EMAIL, delivery_id
from actors.consumers.notification.message import Message, Unwritable, is_address, plain_message
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


class MailWriter:
    """Renders the e-mail of a `user.*` event, in the one template of its type."""

    def __init__(self, folder: Path = Path(__file__).parent / "templates") -> None:
        environment = jinja2.Environment(  # noqa: S701 - plain text, nothing to escape
            undefined=jinja2.StrictUndefined, keep_trailing_newline=True
        )
        self._templates = {
            path.stem: environment.from_string(path.read_text(encoding="utf-8")) for path in folder.glob("*.txt")
        }

    def deliveries(self, event: Event, source: str, now: float) -> list[Delivery]:
        """One row to the user's address; none for other events, or for a user without a usable address.

        Raises `Permanent` for malformed data.
        """
        template = self._templates.get(event.type)
        if template is None or kind_of(event) != "user":
            return []
        change = decode_change(event)
        user = change.entity or change.previous or {}
        address = user.get("email")
        if not isinstance(address, str) or not is_address(address):
            return []
        subject, _, body = template.render(
            name=_one_line(user.get("name") or address), email=address, changed=_changed(change)
        ).partition("\n")
        mail = Mail(address, _one_line(subject), body.strip() + "\n", event.time)
        return [
            Delivery(
                id=delivery_id(event, f"mailto:{address}"),
                channel=EMAIL,
                endpoint=lane_of(address),
                event_id=event.id,
                event_type=event.type,
                source=source,
                payload=msgspec.json.encode(mail),
                due_at=now,
            )
        ]


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


def _changed(change: EntityChange) -> list[str]:
    before: dict[str, Any] = change.previous or {}
    after: dict[str, Any] = change.entity or {}
    return [name for name in ("name", "email", "bio") if name in before and before[name] != after.get(name)]


def _one_line(text: Any) -> str:
    return _CONTROL.sub(" ", str(text)).strip()[:200]
