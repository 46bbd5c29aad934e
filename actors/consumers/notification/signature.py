"""Standard Webhooks 1.0 signatures (symmetric, `v1`). Pure.

Source: https://github.com/standard-webhooks/standard-webhooks, specification 1.0.0.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable

PREFIX = "whsec_"


class InvalidSecret(ValueError):
    """The endpoint's secret is not `whsec_` and base64."""


def sign(secret: str, id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature` for the exact bytes of *body*, by one secret.

    Args:
        secret: the endpoint's, `whsec_` + base64.
        id: `webhook-id`, constant over attempts; it contains no full stop, which separates what is signed.
        timestamp: `webhook-timestamp`, Unix seconds of this attempt.

    Raises InvalidSecret, and ValueError for an id that would make the signed content ambiguous.
    """
    if "." in id:
        raise ValueError(f"a webhook-id has no full stop: {id!r}")
    content = b".".join((id.encode(), str(timestamp).encode(), body))
    digest = hmac.new(_key(secret), content, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def sign_all(secrets: Iterable[str], id: str, timestamp: int, body: bytes) -> str:
    """The same by several secrets: a receiver is content with the one it knows, so that secrets are replaced without
    a gap. Raises as `sign` does."""
    return " ".join(sign(secret, id, timestamp, body) for secret in secrets)


def _key(secret: str) -> bytes:
    raw = secret.removeprefix(PREFIX)
    try:
        key = base64.b64decode(raw + "=" * (-len(raw) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidSecret("a webhook secret is whsec_ and base64") from None
    if not key:
        raise InvalidSecret("a webhook secret must not be empty")
    return key
