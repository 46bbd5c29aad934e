"""What the store keeps of clients and tokens, and how secrets are made and compared. Pure but for `secrets`.

Tokens and client secrets have 256 random bits, so a plain SHA-256 is enough: there is nothing to guess.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence

import msgspec

from actors.authenticator.messages import Principal
from backends.ports.entities import Entity

CLIENT = "client"
TOKEN = "token"  # noqa: S105 - an entity kind

CLIENT_ID = re.compile(r"[A-Za-z0-9._~-]{1,100}")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,100}")


class ClientRecord(msgspec.Struct, frozen=True):
    """The private body of a `client` entity. `secret` is the hex SHA-256."""

    id: str
    name: str
    scopes: tuple[str, ...]
    secret: str


class TokenRecord(msgspec.Struct, frozen=True):
    """The private body of a `token` entity, whose id is the token's hex SHA-256. Times are Unix seconds.

    `client_id` is empty for a token that the operator issued.
    """

    subject: str
    scopes: tuple[str, ...]
    client_id: str
    issued_at: float
    expires_at: float


def new_token() -> str:
    return f"weir_{secrets.token_urlsafe(32)}"


def new_client_secret() -> str:
    return f"weirsec_{secrets.token_urlsafe(32)}"


def digest(secret: str) -> str:
    """What is stored in place of a token or a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def secret_matches(client: ClientRecord | None, secret: str) -> bool:
    """Compare in constant time; an unknown client takes as long as a wrong secret."""
    expected = digest("") if client is None else client.secret
    return hmac.compare_digest(expected, digest(secret)) and client is not None


def parse_scope(text: str) -> tuple[str, ...]:
    """The scope tokens of a space-separated list (RFC 6749 §3.3), each once; ValueError names a bad one."""
    return check_scopes(text.split(" ")) if text else ()


def check_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    """*scopes*, each once and in their order; ValueError names one that cannot be."""
    for scope in scopes:
        if not _SCOPE.fullmatch(scope):
            raise ValueError(f"{scope[:40]!r} is not a scope")
    return tuple(dict.fromkeys(scopes))


def client_of(entity: Entity | None) -> ClientRecord | None:
    return None if entity is None else msgspec.json.decode(entity.body, type=ClientRecord)


def token_of(entity: Entity | None) -> TokenRecord | None:
    return None if entity is None else msgspec.json.decode(entity.body, type=TokenRecord)


def valid(token: TokenRecord | None, client: Entity | None, now: float) -> bool:
    """Whether *token* counts at *now*: it has not expired, and its client, if it has one, still exists.

    A client that was deleted and made anew does not bring the tokens of its predecessor back.
    """
    if token is None or token.expires_at <= now:
        return False
    return not token.client_id or (client is not None and client.created_at <= token.issued_at)


def principal(token: TokenRecord, id: str) -> Principal:
    return Principal(token.subject, frozenset(token.scopes), token.client_id, token.expires_at, id)
