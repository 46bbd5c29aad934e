"""What a write answers, and what it may be refused for. Pure.

Refusals know no status code; `as_problem` maps them, and a test asserts that it maps every one.
"""

from dataclasses import dataclass

import msgspec

from gateway.problem import FieldError, ProblemError
from gateway.request import Headers, Response
from gateway.services.bodies import invalid

CONTENT_JSON = (b"content-type", b"application/json")
# What a token allowed one caller to see is for no shared cache, and for no private one without asking again.
REVALIDATE = (b"cache-control", b"private, no-cache")
NO_STORE = (b"cache-control", b"no-store")


class Answer(msgspec.Struct, frozen=True):
    """The answer of a write, as it is kept for an Idempotency-Key too. Empty `etag`/`location`: no such header."""

    status: int
    body: bytes = b""
    etag: str = ""
    location: str = ""
    replayed: bool = False

    def response(self) -> Response:
        headers: Headers = [CONTENT_JSON] if self.body else []
        if self.etag:
            headers.append((b"etag", self.etag.encode()))
        if self.location:
            headers.append((b"location", self.location.encode()))
        if self.replayed:
            headers.append((b"idempotency-replayed", b"true"))
        headers.append(NO_STORE)
        return Response(self.status, headers, self.body)


@dataclass(frozen=True, slots=True)
class Absent:
    """The entity does not exist. `what`: `user`, `configuration` …"""

    what: str
    id: str


@dataclass(frozen=True, slots=True)
class PreconditionFailed:
    """If-Match or If-None-Match does not hold. `version` is the current one, None: the entity does not exist."""

    version: int | None


@dataclass(frozen=True, slots=True)
class Invalid:
    """What the write would store breaks the schema."""

    errors: tuple[FieldError, ...]


@dataclass(frozen=True, slots=True)
class KeyReused:
    """The Idempotency-Key belongs to a request with another body."""


Refusal = Absent | PreconditionFailed | Invalid | KeyReused


def as_problem(refusal: Refusal) -> ProblemError:
    match refusal:
        case Absent(what=what, id=id):
            return ProblemError(404, f"there is no {what} {id[:200]!r}")
        case PreconditionFailed(version=None):
            return ProblemError(412, "the precondition does not hold: there is nothing here")
        case PreconditionFailed(version=version):
            headers = [(b"etag", f'"{version}"'.encode())]
            return ProblemError(
                412, f'the precondition does not hold: the current ETag is "{version}"', headers=headers
            )
        case Invalid(errors=errors):
            return invalid(list(errors))
        case KeyReused():
            return ProblemError(422, "this Idempotency-Key was used for a request with another body; use a new key")
