"""The rules and the template of docs/notifications.md do what it says."""

import re
from pathlib import Path

import msgspec

from actors.consumers.notification.mail import MailWriter, mail_of
from actors.consumers.notification.outcomes import Away, Failed, Gone, Refused, Sent, Withdrawn
from actors.consumers.notification.rendering import GIVEN
from composition.mail_rules import mail_rules
from settings import load
from tests.consumers.fakes import change, event

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "notifications.md").read_text()
BLOCKS = dict(re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL))


def test_its_rules_and_its_template_write_its_e_mail(tmp_path: Path) -> None:
    (name,) = re.findall(r"^\{# (\S+) -#\}", BLOCKS["jinja"])
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(BLOCKS["jinja"])
    (tmp_path / "config.toml").write_text(BLOCKS["toml"])
    writer = MailWriter(mail_rules(load(tmp_path / "config.toml", {})))
    ada = {"name": "Ada Lovelace", "email": "ada@example.org", "bio": ""}
    moved = change("u1", 2, previous=ada, **{**ada, "email": "ada@example.com"})

    def sent(type: str, data: object) -> list[str]:
        noon = msgspec.structs.replace(event("e1", type=type, data=data), time=43_200.0)
        rows = writer.deliveries(noon, "entity.changed/0/0", 0.0).rows
        return [f"{(mail := mail_of(row)).to}\nSubject: {mail.subject}\n{mail.body}" for row in rows]

    assert sent("user.updated", moved) == [f"security@example.org\n{BLOCKS['text']}"]
    assert sent("user.updated", change("u1", 3, previous={**ada, "bio": "x"}, **ada)) == []
    (welcome,) = sent("user.created", change("u1", 1, **ada))
    assert welcome.startswith("ada@example.org\nSubject: Welcome, Ada Lovelace\n")


def test_it_names_all_that_templates_are_given() -> None:
    (given,) = re.findall(r"It is given (.*?) It runs", DOCUMENT, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", given)) - {"datetime"} == set(GIVEN)


def test_it_names_every_outcome() -> None:
    (outcomes,) = re.findall(r"weir_deliveries_total\{channel,outcome\}` \((.*?)\)", DOCUMENT, re.DOTALL)
    kinds = (Sent, Failed, Refused, Gone, Withdrawn, Away)
    assert set(re.findall(r"`(\w+)`", outcomes)) == {kind.__name__.lower() for kind in kinds}
