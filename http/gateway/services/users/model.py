"""A user: its document, what a client may set, and what is wrong with a value. Pure."""

import re
from typing import Annotated

import msgspec

from gateway.problem import FieldError

KIND = "user"
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

Name = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=200,
        description="Not blank, no control characters.",
        # Told, not checked: `rules` refuses with words of its own.
        extra_json_schema={"pattern": r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$"},
    ),
]
Email = Annotated[
    str, msgspec.Meta(min_length=3, max_length=254, extra_json_schema={"format": "email"}, examples=["ada@example.org"])
]
Bio = Annotated[str, msgspec.Meta(max_length=2000)]


class UserInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client may set. An absent `bio` is empty."""

    name: Name
    email: Email
    bio: Bio = ""


class UserPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON Merge Patch (RFC 7396): members to replace; null removes one."""

    name: Name | msgspec.UnsetType = msgspec.UNSET
    email: Email | msgspec.UnsetType = msgspec.UNSET
    bio: Bio | msgspec.UnsetType | None = msgspec.UNSET


class User(msgspec.Struct, frozen=True):
    """A user as clients see it. Times are RFC 3339 in UTC."""

    id: str
    name: Name
    email: Email
    bio: Bio
    version: int
    created_at: Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
    updated_at: Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]


class UserPage(msgspec.Struct, frozen=True):
    """One page of users by id, which is the order they were created in. No cursor: it was the last page."""

    items: list[User]
    next_cursor: str | None


def rules(user: UserInput) -> list[FieldError]:
    """The faults that a schema cannot express."""
    found = []
    if not user.name.strip():
        found.append(FieldError("#/name", "must not be blank"))
    elif not _printable(user.name):
        found.append(FieldError("#/name", "must not contain control characters or line breaks"))
    if not plausible_email(user.email):
        found.append(FieldError("#/email", "is not an e-mail address: local@domain, without spaces, is expected"))
    if "\0" in user.bio:
        found.append(FieldError("#/bio", "must not contain NUL characters"))
    return found


def plausible_email(text: str) -> bool:
    """One `@` between a local part and a domain of non-empty labels; nothing that could break a mail header."""
    local, at, domain = text.partition("@")
    if not at or not local or not all(domain.split(".")):
        return False
    return (
        text.isprintable() and not any(char.isspace() or char in '<>(),;:"[]\\' for char in text) and "@" not in domain
    )


def _printable(text: str) -> bool:
    return not any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or char in "\u2028\u2029" for char in text)
