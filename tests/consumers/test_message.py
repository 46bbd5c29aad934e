"""The bytes of an e-mail: read back by the standard library, they say what was put in."""

import email
import email.policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.consumers.notification.message import Unwritable, is_address, plain_message

text = st.text(st.characters(exclude_categories=["Cs", "Cc"]))


def made(*, subject: str = "Hello", body: str = "Hi\n", to: str = "ada@example.org") -> bytes:
    return plain_message(id="msg_1", sender="weir@example.org", to=to, subject=subject, body=body, at=1e9).content


def read(content: bytes) -> EmailMessage:
    parsed = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    assert not parsed.defects
    return parsed


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r")))
def test_a_body_comes_back_as_it_went_in_and_is_ascii_on_the_wire(body: str) -> None:
    content = made(body=body)
    assert content.isascii()
    assert all(len(line) <= 998 and b"\n" not in line for line in content.split(b"\r\n"))
    assert read(content).get_payload(decode=True) == (body.removesuffix("\n") + "\n").replace("\n", "\r\n").encode()


@given(text.filter(lambda subject: subject == subject.strip()))
def test_a_subject_comes_back_as_it_went_in(subject: str) -> None:
    content = made(subject=subject)
    assert content.partition(b"\r\n\r\n")[0].isascii()
    assert all(len(line) <= 78 for line in content.partition(b"\r\n\r\n")[0].split(b"\r\n"))
    assert str(email.header.make_header(email.header.decode_header(read(content)["Subject"]))) == subject


@pytest.mark.parametrize("subject", ["two\nlines", "a\r\nBcc: b@y.org", "\x00", "half \ud83d"])
def test_a_subject_that_is_more_than_a_line_is_refused(subject: str) -> None:
    with pytest.raises(Unwritable):
        made(subject=subject)


@pytest.mark.parametrize(
    "address", ["", "no-at", "a@", "a@x, b@y", "a@x\r\nRCPT TO:<b@y>", "<a@x>", "a b@x", "a@x\n", f"{'a' * 300}@x.org"]
)
def test_what_is_not_one_address_is_refused(address: str) -> None:
    assert not is_address(address)
    with pytest.raises(Unwritable):
        made(to=address)


def test_an_address_beyond_ascii_is_kept_and_said_to_be() -> None:
    message = plain_message(id="m", sender="weir@example.org", to="jörg@example.org", subject="s", body="b\n", at=0.0)
    assert message.utf8
    assert "To: jörg@example.org\r\n".encode() in message.content


def test_the_plainest_message_is_plain() -> None:
    head, _, body = made().partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"From: weir@example.org",
        b"To: ada@example.org",
        b"Subject: Hello",
        b"Date: Sun, 09 Sep 2001 01:46:40 -0000",
        b"Message-ID: <msg_1@example.org>",
        b"Auto-Submitted: auto-generated",
        b"MIME-Version: 1.0",
        b'Content-Type: text/plain; charset="utf-8"',
        b"Content-Transfer-Encoding: 7bit",
    ]
    assert body == b"Hi\r\n"
