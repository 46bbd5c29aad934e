"""Signatures on heads of audit chains: those that leave the house, and the checkpoints of retention. Pure.

HMAC-SHA-256 with a key of the data directory: see docs/decisions/0017-audit-chains.md for why not a pair of keys.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

import msgspec
import rfc8785

from backends.ports.stores import AuditHead

_FORMAT = "weir-audit-heads-1"


class SignedHeads(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The heads of all chains at one time, to be kept where nobody who can write the trail can write.

    `at` is RFC 3339; `key` names the key without telling it; `signature` (hex) covers all the rest.
    """

    format: str
    at: str
    key: str
    heads: tuple[AuditHead, ...]
    signature: str


class AuditKey:
    """A secret, as text."""

    def __init__(self, secret: str) -> None:
        # Two keys, so that no signature of one kind can pass for the other.
        self._checkpoints = _derived(secret, "checkpoint")
        self._heads = _derived(secret, "heads")
        self.id = _derived(secret, "name").hex()[:16]

    def sign(self, head: AuditHead) -> str:
        """For a checkpoint: `key id:hex`."""
        return f"{self.id}:{_mac(self._checkpoints, msgspec.to_builtins(head))}"

    def trusted(self, head: AuditHead, signature: str) -> bool:
        """Whether `sign` made *signature* for *head*."""
        return hmac.compare_digest(self.sign(head).encode(), signature.encode())

    def sign_heads(self, at: str, heads: Sequence[AuditHead]) -> SignedHeads:
        unsigned = SignedHeads(format=_FORMAT, at=at, key=self.id, heads=tuple(heads), signature="")
        return msgspec.structs.replace(unsigned, signature=self._over(unsigned))

    def heads_of(self, signed: SignedHeads) -> tuple[AuditHead, ...]:
        """The heads in *signed*. Raises ValueError when the signature does not hold."""
        if signed.format != _FORMAT:
            raise ValueError(f"its format is {signed.format!r}, not {_FORMAT!r}")
        if signed.key != self.id:
            raise ValueError(f"it was signed with key {signed.key!r}, and ours is {self.id!r}")
        if not hmac.compare_digest(self._over(signed).encode(), signed.signature.encode()):
            raise ValueError("its signature does not hold: it was changed after it was signed")
        return signed.heads

    def _over(self, signed: SignedHeads) -> str:
        document = msgspec.to_builtins(signed)
        del document["signature"]
        return _mac(self._heads, document)


def _derived(secret: str, purpose: str) -> bytes:
    return hmac.digest(secret.encode(), f"weir audit {purpose}".encode(), hashlib.sha256)


def _mac(key: bytes, document: dict[str, Any]) -> str:
    return hmac.digest(key, rfc8785.dumps(document), hashlib.sha256).hex()
