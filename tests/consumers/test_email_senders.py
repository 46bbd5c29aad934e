"""E-mails through a real SMTP relay, and into the outbox."""

import email
import email.policy
from pathlib import Path

import msgspec
import pytest
import trio

from actors.consumers.notification.outbox import OutboxSender
from actors.consumers.notification.outcomes import Away, Failed, Outcome, Refused, Sent
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


def batch(*names: str) -> list[Delivery]:
    rows = [mail_row(f"{name}@example.org") for name in names]
    return [msgspec.structs.replace(row, id=f"msg_{number}") for number, row in enumerate(rows)]


def arrived(relay: Relay) -> list[str]:
    return [envelope.rcpt_tos[0].partition("@")[0] for envelope in relay.handler.taken]


async def test_the_e_mails_of_a_batch_go_over_one_connection(relay: Relay) -> None:
    assert await smtp(relay).send(batch("a", "b", "c")) == [Sent()] * 3
    assert arrived(relay) == ["a", "b", "c"]
    assert len(set(relay.handler.peers)) == 1
    assert len({email.message_from_bytes(taken.content)["Message-ID"] for taken in relay.handler.taken}) == 3


@pytest.mark.parametrize(("answer", "kind"), [("550 no such user", Refused), ("451 later", Failed)])
async def test_one_that_is_refused_takes_nobody_with_it(relay: Relay, answer: str, kind: type) -> None:
    relay.handler.answers["b@example.org"] = answer
    first, second, third = await smtp(relay).send(batch("a", "b", "c"))
    assert (first, third) == (Sent(), Sent())
    assert isinstance(second, kind)
    assert arrived(relay) == ["a", "c"]
    assert len(set(relay.handler.peers)) == 1, "RSET is enough"


async def test_a_relay_that_drops_the_connection_fails_only_what_it_had_not_taken(relay: Relay) -> None:
    relay.handler.answers["b@example.org"] = "drop"
    first, second, third = await smtp(relay).send(batch("a", "b", "c"))
    assert (first, third) == (Sent(), Sent())
    assert isinstance(second, Failed)
    assert arrived(relay) == ["a", "c"]
    assert len(set(relay.handler.peers)) == 2


async def test_a_connection_that_was_closed_between_two_e_mails_is_replaced(relay: Relay) -> None:
    relay.handler.answers["b@example.org"] = "421 too many; come again"
    first, second, third = await smtp(relay).send(batch("a", "b", "c"))
    assert (first, third) == (Sent(), Sent())
    assert isinstance(second, Failed)
    assert "come again" in second.failure.message


async def test_after_a_relay_that_is_silent_the_rest_of_the_batch_is_not_tried(relay: Relay) -> None:
    relay.handler.answers["b@example.org"] = "hang"
    first, second, *rest = await smtp(relay, timeout=0.5).send(batch("a", "b", "c", "d"))
    assert first == Sent()
    assert isinstance(second, Failed)
    assert second.failure.fqcn == "TimeoutError"
    assert all(isinstance(outcome, Away) for outcome in rest)
    assert len(rest) == 2
    assert arrived(relay) == ["a"]


async def test_an_e_mail_that_cannot_be_one_is_left_out_of_the_batch(relay: Relay) -> None:
    rows = batch("a", "b", "c")
    rows[1] = mail_row("no address")
    first, second, third = await smtp(relay).send(rows)
    assert (first, third) == (Sent(), Sent())
    assert isinstance(second, Refused)


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


async def test_a_file_that_cannot_take_its_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "outbox" / "msg_1.eml" / "in the way").mkdir(parents=True)
    assert isinstance(await sent(OutboxSender(tmp_path / "outbox"), mail_row()), Failed)
    assert [path.name for path in (tmp_path / "outbox").iterdir()] == ["msg_1.eml"]
