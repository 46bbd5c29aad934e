"""The writes of tokens and clients, for the OAuth endpoints and for the operator's command line. Pure."""

from collections.abc import Sequence

import msgspec

from actors.cache_manager.messages import TOKEN_VALIDATION
from backends.ports.entities import Decision, Entity, Key, Refused, Write
from gateway.services.answers import Absent
from gateway.services.auth.records import (
    CLIENT,
    CLIENT_ID,
    TOKEN,
    ClientRecord,
    TokenRecord,
    check_scopes,
    digest,
    token_of,
)
from gateway.services.events import Cause, audited, first_version, invalidation

MAX_TTL_S = 10 * 365 * 86400
"""Ten years: longer is a slip of the pen."""


class ClientExists(msgspec.Struct, frozen=True):
    """There is a client of this id already."""

    id: str


class NotYours(msgspec.Struct, frozen=True):
    """The token was issued to another client."""


def issue_token(
    subject: str, scopes: Sequence[str], ttl_s: float, token: str, cause: Cause, client_id: str = ""
) -> Write:
    """Answers with the `TokenRecord`. Refuses with `Absent` when *client_id* is given and that client is gone.

    *token* comes from `new_token`; only its digest is kept. Raises ValueError for scopes or a lifetime
    that cannot be.
    """
    if ttl_s <= 0:
        raise ValueError(f"a token's lifetime must be above 0 s, got {ttl_s}")
    if ttl_s > MAX_TTL_S:
        raise ValueError(f"a token's lifetime is at most {MAX_TTL_S // 86400} days")
    if not subject or not subject.isprintable() or len(subject) > 200:
        raise ValueError("a subject is 1 to 200 printable characters")
    record = TokenRecord(subject, check_scopes(scopes), client_id, cause.at, cause.at + ttl_s)
    id = digest(token)

    def decide(entities: Sequence[Entity | None], versions: Sequence[int]) -> Decision:
        if client_id and entities[1] is None:
            raise Refused(Absent(CLIENT, client_id))
        body = msgspec.json.encode(record)
        entity = Entity(TOKEN, id, first_version(versions[0]), cause.at, cause.at, body, record.expires_at)
        # No cache.invalidate: nobody can have asked for a random token before there was one.
        return Decision(record, put=(entity,), events=(audited(cause, "token.issue", token_entity(id), 200),))

    keys = (Key(TOKEN, id), Key(CLIENT, client_id)) if client_id else (Key(TOKEN, id),)
    return Write(keys, decide)


def revoke_token(id: str, cause: Cause, client_id: str | None = None) -> Write:
    """Answers whether there was such a token (*id*: its digest). Refuses with `NotYours` if it is not *client_id*'s.

    *client_id* None: whoever's it is.
    """

    def decide(entities: Sequence[Entity | None], _: Sequence[int]) -> Decision:
        record = token_of(entities[0])
        if record is None:
            return Decision(False)
        if client_id is not None and record.client_id != client_id:
            raise Refused(NotYours())
        events = (invalidation(cause, (TOKEN_VALIDATION, id)), audited(cause, "token.revoke", token_entity(id), 200))
        return Decision(True, remove=(Key(TOKEN, id),), events=events)

    return Write((Key(TOKEN, id),), decide)


def create_client(id: str, name: str, scopes: Sequence[str], secret: str, cause: Cause) -> Write:
    """Answers with the `ClientRecord`; refuses with `ClientExists`. *secret* comes from `new_client_secret`.

    Raises ValueError for an id or scopes that cannot be.
    """
    if not CLIENT_ID.fullmatch(id):
        raise ValueError("a client's id is 1 to 100 characters of A-Z a-z 0-9 . _ ~ -")
    if not name or not name.isprintable() or len(name) > 200:
        raise ValueError("a client's name is 1 to 200 printable characters")
    record = ClientRecord(id, name, check_scopes(scopes), digest(secret))

    def decide(entities: Sequence[Entity | None], versions: Sequence[int]) -> Decision:
        if entities[0] is not None:
            raise Refused(ClientExists(id))
        entity = Entity(CLIENT, id, first_version(versions[0]), cause.at, cause.at, msgspec.json.encode(record))
        return Decision(record, put=(entity,), events=(audited(cause, "client.create", f"{CLIENT}/{id}", 201),))

    return Write((Key(CLIENT, id),), decide)


def delete_client(id: str, cause: Cause) -> Write:
    """Answers with True; refuses with `Absent`. Its tokens end with it, at the latest when their validation
    is next looked up (one minute)."""

    def decide(entities: Sequence[Entity | None], _: Sequence[int]) -> Decision:
        if entities[0] is None:
            raise Refused(Absent(CLIENT, id))
        return Decision(
            True, remove=(Key(CLIENT, id),), events=(audited(cause, "client.delete", f"{CLIENT}/{id}", 204),)
        )

    return Write((Key(CLIENT, id),), decide)


def token_entity(id: str) -> str:
    """How audits name a token: enough of its digest to tell it from others."""
    return f"{TOKEN}/{id[:16]}"
