"""An e-mail's bytes (RFC 5322, MIME), made directly. Pure.

The standard library's `EmailMessage` parses every header it is given by a grammar: 700 µs a message, on the event
loop. All that is asked of a header here is that it is one line, so that is what is looked at.
"""

import re
from email.header import Header
from email.quoprimime import body_encode
from email.utils import formatdate
from typing import NamedTuple

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ADDRESS = re.compile(r"[^\s<>,;:\"()\[\]\\@\x00-\x1f\x7f]+@[^\s<>,;:\"()\[\]\\@\x00-\x1f\x7f]+")
_LINE = 998
"""Octets, without CRLF (RFC 5322 §2.1.1)."""


class Unwritable(ValueError):
    """No message can carry this."""


class Message(NamedTuple):
    """`content` is ASCII but for the addresses, and those only where `utf8` says so (RFC 6531)."""

    sender: str
    recipient: str
    content: bytes
    utf8: bool


def is_address(text: str) -> bool:
    """Whether *text* is one plain addr-spec: no list, no comment, no quoted part, nothing that could be a header."""
    return len(text) <= 254 and _ADDRESS.fullmatch(text) is not None


def plain_message(*, id: str, sender: str, to: str, subject: str, body: str, at: float) -> Message:
    """A text/plain message; the same bytes for the same arguments. *id* is the left part of its Message-ID, *at* its
    date, Unix seconds.

    Raises `Unwritable` for an address or a header that would be something else than one value.
    """
    for address in (sender, to):
        if not is_address(address):
            raise Unwritable(f"{address!r} is no e-mail address")
    if _CONTROL.search(subject) or _CONTROL.search(id):
        raise Unwritable("a header has a control character")
    text, encoding = _encoded(body)
    head = (
        f"From: {sender}\r\n"
        f"To: {to}\r\n"
        f"Subject: {_header(subject)}\r\n"
        f"Date: {formatdate(at)}\r\n"
        f"Message-ID: <{id}@{sender.rpartition('@')[2]}>\r\n"
        "Auto-Submitted: auto-generated\r\n"  # RFC 3834: no vacation notices, please
        "MIME-Version: 1.0\r\n"
        'Content-Type: text/plain; charset="utf-8"\r\n'
        f"Content-Transfer-Encoding: {encoding}\r\n"
        "\r\n"
    )
    try:
        return Message(sender, to, (head + text).encode(), utf8=not (sender.isascii() and to.isascii()))
    except UnicodeEncodeError as error:
        raise Unwritable(f"half of a surrogate pair is no text ({error.reason})") from error


def _header(text: str) -> str:
    """*text* as it is, or in encoded words (RFC 2047)."""
    # `=?` in plain text would be read as the beginning of an encoded word.
    if text.isascii() and len(text) <= 60 and "=?" not in text:
        return text
    try:
        return Header(text, "utf-8", maxlinelen=76, header_name="Subject").encode(linesep="\r\n")
    except UnicodeEncodeError as error:
        raise Unwritable(f"half of a surrogate pair is no text ({error.reason})") from error


def _encoded(body: str) -> tuple[str, str]:
    """The body with CRLF at every line's end, and its transfer encoding."""
    lines = body.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    if body.isascii() and max(map(len, lines)) <= _LINE and "\x00" not in body:
        return "\r\n".join(lines) + "\r\n", "7bit"
    try:
        octets = "\n".join(lines).encode().decode("latin-1")  # one character an octet is what body_encode takes
    except UnicodeEncodeError as error:
        raise Unwritable(f"half of a surrogate pair is no text ({error.reason})") from error
    return body_encode(octets, eol="\r\n") + "\r\n", "quoted-printable"
