"""Operations on the audit trail: verify it, sign its heads."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from backends.ports.audit_signing import AuditKey, SignedHeads
from backends.ports.stores import AuditHead, AuditStore, Progress
from gateway.admin.operations import OperationError
from gateway.services.times import rfc3339


class AuditOperations:
    """Args: *key* is called when it is needed: reading it must not keep anything from starting."""

    def __init__(self, store: AuditStore, key: Callable[[], AuditKey], now: Callable[[], float]) -> None:
        self._store = store
        self._key = key
        self._now = now

    def by_name(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        return {"audit.verify": self.verify, "audit.head": self.head}

    async def head(self) -> dict[str, Any]:
        """The last row of every chain, signed. Kept elsewhere, it shows a tail that is cut off later."""
        signed = self._key().sign_heads(rfc3339(self._now()), await self._store.heads())
        document: dict[str, Any] = msgspec.to_builtins(signed)
        return document

    async def verify(self, progress: Progress, head: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check all chains, against *head* too (what `head` answered once)."""
        expected = () if head is None else self._trusted(head)
        verdict = await self._store.verify(trusted=self._key().trusted, expected=expected, progress=progress)
        return {"whole": not verdict.broken, **msgspec.to_builtins(verdict)}

    def _trusted(self, head: dict[str, Any]) -> tuple[AuditHead, ...]:
        try:
            return self._key().heads_of(msgspec.convert(head, SignedHeads))
        except msgspec.ValidationError as error:
            raise OperationError(f"the signed head is none: {error}; `audit head` prints one") from None
        except ValueError as error:
            raise OperationError(f"the signed head is not to be trusted: {error}") from None
