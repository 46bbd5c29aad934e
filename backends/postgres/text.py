"""Texts of any characters in PostgreSQL's, which takes neither NUL nor lone surrogates. Pure.

Escaped with a backslash, itself doubled, so that every text has one form and comes back as it was. Nearly all texts
are their own.
"""

import re

_ESCAPED = re.compile(r"[\\\x00\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(?:\\|u([0-9a-f]{4}))")


def to_text(text: str) -> str:
    return _ESCAPED.sub(lambda found: _escape(found[0]), text)


def from_text(stored: str) -> str:
    if "\\" not in stored:
        return stored
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else "\\", stored)


def to_id(id: str) -> bytes:
    return id.encode("utf-8", "surrogatepass")


def from_id(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogatepass")


def _escape(character: str) -> str:
    return "\\\\" if character == "\\" else f"\\u{ord(character):04x}"
