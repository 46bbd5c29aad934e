"""What `authenticator` understands."""

from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. `expires_at` is Unix seconds; `digest` the token's SHA-256 in hex."""

    subject: str
    scopes: frozenset[str]
    client_id: str
    expires_at: float
    digest: str


class Failure(Enum):
    """Why there is no principal. The gateway maps these to RFC 6750 answers."""

    INVALID_TOKEN = "invalid_token"  # noqa: S105
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Authenticate:
    """→ `Principal | Failure`. *digest* is the hex SHA-256 of the token.

    *token* is the token itself, for an Auth Service elsewhere alone: it travels in messages as far as the load that
    needs it, is kept by none of those that it passes, and no `repr` shows it.
    """

    digest: str
    token: bytes | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Introspect:
    """Asked of the Auth Service → `Principal | None` (unknown, expired or revoked). `Reject` carries what went wrong,
    which says nothing about the token. *token*: see `Authenticate`."""

    digest: str
    token: bytes | None = field(default=None, repr=False, compare=False)


class NotValidated(Exception):
    """An Auth Service elsewhere told us nothing about a token that can be believed. Whoever raised it has logged it."""


class AuthServiceAway(NotValidated):
    """It does not answer, or not as one: down, slow, refusing us, or somebody else.

    *refused*: it does not accept our own credentials, which waiting does not cure.
    """

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class UnusableAnswer(NotValidated):
    """It answers, but what it says of this one token cannot be. Others may fare better."""
