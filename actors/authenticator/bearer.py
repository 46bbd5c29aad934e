"""Read the Authorization header of a request. Pure.

Source: RFC 6750 §2.1 (header only: no token in a query or a form), RFC 9110 §11.
"""

import hashlib
import re
from collections.abc import Sequence
from enum import Enum

# 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
_B64TOKEN = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")
# What separates a scheme from its credentials is one or more spaces; tabs and other controls are no part of either.
_CREDENTIALS = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)(?: +(.*))?", re.DOTALL)


class HeaderFault(Enum):
    """Two ways in which the header itself is wrong. The gateway answers 400 and 401."""

    MALFORMED_HEADER = "invalid_request"
    """400: several Authorization headers, no scheme, a scheme without a token, more than one word after it."""
    MALFORMED_TOKEN = "invalid_token"  # noqa: S105
    """401: one word, but no b64token, so that it cannot be a token anybody issued."""


def parse_authorization(values: Sequence[bytes]) -> bytes | HeaderFault | None:
    """The Bearer token in the values of all Authorization headers of one request; see `digest`.

    None: no credentials that concern us (no header, or another scheme such as Basic).
    """
    if not values:
        return None
    if len(values) > 1:
        return HeaderFault.MALFORMED_HEADER
    match = _CREDENTIALS.fullmatch(values[0].strip(b" \t"))
    if match is None:
        return HeaderFault.MALFORMED_HEADER
    scheme, token = match.groups()
    if scheme.lower() != b"bearer":
        return None
    if not token or b" " in token or b"\t" in token:
        return HeaderFault.MALFORMED_HEADER
    if _B64TOKEN.fullmatch(token) is None:
        return HeaderFault.MALFORMED_TOKEN
    return token


def digest(token: bytes) -> str:
    """How a token is known everywhere inside: its SHA-256, 64 hex digits. From it nobody learns the token."""
    return hashlib.sha256(token).hexdigest()
