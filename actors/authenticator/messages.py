"""What `authenticator` understands."""

from dataclasses import dataclass
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
    """→ `Principal | Failure`. *digest* is the hex SHA-256 of the token; the token itself goes nowhere."""

    digest: str


@dataclass(frozen=True, slots=True)
class Introspect:
    """Asked of the Auth Service → `Principal | None` (unknown, expired or revoked)."""

    digest: str
