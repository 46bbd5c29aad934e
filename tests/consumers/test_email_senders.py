"""E-mails through a real SMTP relay, and into the outbox."""

import email
import email.policy
from pathlib import Path

import pytest
import trio

from actors.consumers.notification.outbox import OutboxSender
from actors.consumers.notification.outcomes import Failed, Outcome, Refused, Sent
from actors.consumers.notification.senders import EmailSender
from actors.consumers.notification.smtp import SmtpSender
from backends.ports.stores import Delivery
from tests.consumers.receivers import Endpoint, Relay, mail_row, smtp

pytestmark = pytest.mark.process


async def sent(sender: EmailSender, delivery: Delivery) -> Outcome:
    (outcome,) = await sender.send([delivery])
    return outcome


async def test_an_e_mail_arrives_as_it_was_written(relay: Relay) -> None:
    assert await sent(smtp(relay), mail_row()) == Sent()
    (envelope,) = relay.handler.taken
    assert (envelope.mail_from, envelope.rcpt_tos) == ("weir@example.org", ["ada@example.org"])
    message = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert message["Subject"] == "Grüße"
    assert message["Message-ID"] == "<msg_1@example.org>"
    assert message.get_content().splitlines() == ["Hello", ".", "..dots", "Ände"]


@pytest.mark.parametrize(
    ("answer", "kind"), [("550 no such user", Refused), ("451 later", Failed), ("421 going away", Failed)]
)
async def test_the_relays_verdict_decides_whether_to_try_again(relay: Relay, answer: str, kind: type) -> None:
    relay.handler.refuse = answer
    outcome = await sent(smtp(relay), mail_row())
    assert isinstance(outcome, kind)
    assert answer.split(" ", 1)[1] in outcome.failure.message


async def test_an_address_that_would_be_two_never_reaches_the_relay(relay: Relay) -> None:
    assert isinstance(await sent(smtp(relay), mail_row(to="a@x.org>\r\nRCPT TO:<b@x.org")), Refused)
    assert relay.handler.taken == []


async def test_a_relay_that_says_nothing_fails_within_the_timeout(endpoint: Endpoint) -> None:
    silent = SmtpSender("127.0.0.1", endpoint.port, timeout=0.05)
    outcome = await sent(silent, mail_row())
    assert isinstance(outcome, Failed)
    assert outcome.failure.fqcn == "TimeoutError"


async def test_a_relay_that_is_not_there_is_a_failure() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    assert isinstance(await sent(SmtpSender("127.0.0.1", port), mail_row()), Failed)


async def test_the_outbox_holds_one_file_a_delivery_however_often_it_is_sent(tmp_path: Path) -> None:
    outbox = OutboxSender(tmp_path / "outbox", sender="weir@example.org")
    for _ in range(2):
        assert await sent(outbox, mail_row()) == Sent()
    (file,) = (tmp_path / "outbox").iterdir()
    assert file.name == "msg_1.eml"
    message = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
    assert (message["To"], message["Subject"]) == ("ada@example.org", "Grüße")


async def test_an_outbox_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("a file where the folder should be")
    assert isinstance(await sent(OutboxSender(tmp_path / "outbox"), mail_row()), Failed)
