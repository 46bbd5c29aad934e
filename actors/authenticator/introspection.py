"""What an introspection response says of a token, and whether it can be believed. Pure.

Source: RFC 7662 §2.2, §4; RFC 9700 §2.2 (tokens that are bound to a key are no bearer tokens). Of a response that
contradicts itself nothing is believed: whoever sent it may be anybody.
"""

import math
import re
from enum import Enum
from typing import Any

import msgspec

from actors.authenticator.messages import AuthServiceAway, Principal, UnusableAnswer

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")  # RFC 6749 §3.3
_LONGEST_SUBJECT = 1024


class Refused(Enum):
    """Why a token is not accepted, though the Auth Service is well."""

    INACTIVE = "inactive"
    FOREIGN = "foreign"
    """Active, but not for us: for another audience, of another type, or bound to a key that we cannot check."""


class _Verdict(msgspec.Struct, frozen=True):
    active: bool


class _Claims(msgspec.Struct, frozen=True):
    """Of an active token. Times are Unix seconds; a member that is null is as good as absent."""

    sub: str | None = None
    scope: str | None = None
    client_id: str | None = None
    exp: float | None = None
    nbf: float | None = None
    aud: str | list[str] | None = None
    token_type: str | None = None
    cnf: Any = None


_VERDICT = msgspec.json.Decoder(_Verdict)
_CLAIMS = msgspec.json.Decoder(_Claims)


def read(body: bytes, digest: str, now: float, audience: str = "") -> Principal | Refused:
    """Judge the *body* of a 200 about the token with this *digest*, at *now* (Unix seconds).

    *audience*: what `aud` must name; empty: whatever it names. A token without `exp` does not expire by itself.
    Raises AuthServiceAway when this is no introspection response, which nobody's token is to blame for, and
    UnusableAnswer when what it says of this token cannot be.
    """
    try:
        verdict = _VERDICT.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise AuthServiceAway(f"what it answers is no introspection response: {error}") from None
    if not verdict.active:
        return Refused.INACTIVE
    try:
        claims = _CLAIMS.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UnusableAnswer(f"it calls a token active with claims that are none: {error}") from None
    subject, scopes, expires_at = _subject(claims), _scopes(claims), _expiry(claims, now)
    if not _ours(claims, audience):
        return Refused.FOREIGN
    return Principal(subject, scopes, claims.client_id or "", expires_at, digest)


def _subject(claims: _Claims) -> str:
    # RFC 7662 lets it be absent. Limits, audits and upstreams name the subject, so without one there is nobody.
    subject = claims.sub or ""
    if not subject:
        raise UnusableAnswer("it calls a token active without saying whose it is (`sub`)")
    if len(subject) > _LONGEST_SUBJECT or not subject.isprintable():
        raise UnusableAnswer(f"it names a subject (`sub`) that is not printable or above {_LONGEST_SUBJECT} characters")
    return subject


def _scopes(claims: _Claims) -> frozenset[str]:
    if not claims.scope:
        return frozenset()
    if not _SCOPE.fullmatch(claims.scope):
        raise UnusableAnswer("it names scopes (`scope`) that are none")
    return frozenset(claims.scope.split(" "))


def _expiry(claims: _Claims, now: float) -> float:
    expires_at = math.inf if claims.exp is None else claims.exp
    if expires_at <= now:
        raise UnusableAnswer("it calls a token active that has expired (`exp`); do the clocks differ?")
    if claims.nbf is not None and claims.nbf > now:
        raise UnusableAnswer("it calls a token active that is not valid yet (`nbf`); do the clocks differ?")
    return expires_at


def _ours(claims: _Claims, audience: str) -> bool:
    if claims.token_type is not None and claims.token_type.lower() != "bearer":
        return False
    if claims.cnf is not None:
        return False
    named = [claims.aud] if isinstance(claims.aud, str) else claims.aud or []
    return not audience or audience in named
