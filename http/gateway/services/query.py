"""Query strings in, typed parameters out; every refusal is a 400 that names the parameter. Pure."""

import base64
import binascii
from collections.abc import Callable
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from gateway.problem import ProblemError

T = TypeVar("T")

_AfterId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f-]*$", max_length=36)]

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
_MAX_FIELDS = 64


def refuse(parameter: str, detail: str) -> ProblemError:
    return ProblemError(400, f"query parameter {parameter}: {detail}", parameter=parameter)


class Query:
    """The parameters of one query string. Parameters that no one asks for are ignored; doubled ones are refused."""

    def __init__(self, raw: bytes) -> None:
        self._values: dict[str, str] = {}
        try:
            pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
        except UnicodeError:
            raise ProblemError(400, "the query string is not percent-encoded UTF-8") from None
        except ValueError:
            raise ProblemError(400, f"the query string has more than {_MAX_FIELDS} parameters") from None
        for name, value in pairs:
            if name in self._values:
                raise refuse(name, "is there twice")
            # NUL is in nothing that is stored, and PostgreSQL takes it in no text: what holds one matches nothing.
            self._values[name] = value.replace("\0", "\ufffd")

    def text(self, name: str) -> str | None:
        return self._values.get(name)

    def parsed(self, name: str, parse: Callable[[str], T]) -> T | None:
        """The value of *name* through *parse*, whose ValueError becomes the refusal."""
        value = self._values.get(name)
        if value is None:
            return None
        try:
            return parse(value)
        except ValueError as error:
            raise refuse(name, str(error)) from None

    def limit(self) -> int:
        found = self.parsed("limit", _parse_limit)
        return DEFAULT_LIMIT if found is None else found

    def cursor(self, shape: Any) -> Any:
        """The position, a *shape*, that a cursor made by `make_cursor` holds, or None when there is no cursor."""
        return self.parsed("cursor", lambda text: _parse_cursor(text, shape))

    def after_id(self) -> str:
        """The position of a cursor over entities by UUID; "" is the start."""
        found: str | None = self.cursor(_AfterId)
        return found or ""


def _parse_limit(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= MAX_LIMIT:
        return int(text)
    raise ValueError(f"a whole number from 1 to {MAX_LIMIT} is expected, got {text[:40]!r}")


def make_cursor(position: object) -> str:
    """An opaque, URL-safe cursor. Not a secret: it holds nothing that the page before it did not show."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).rstrip(b"=").decode()


def _parse_cursor(text: str, shape: Any) -> Any:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(raw, type=shape)
    except (binascii.Error, msgspec.DecodeError, UnicodeError, ValueError, RecursionError):
        raise ValueError("is not a next_cursor that was given out here") from None


def page(items: list[bytes], next_cursor: str | None) -> bytes:
    """The JSON document of one page; *items* are JSON documents already."""
    cursor = b"null" if next_cursor is None else msgspec.json.encode(next_cursor)
    return b'{"items":[' + b",".join(items) + b'],"next_cursor":' + cursor + b"}"
