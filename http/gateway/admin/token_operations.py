"""Operations on tokens and OAuth clients: the Auth Service's own writes, asked for by the operator."""

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

from actors.cache_manager.messages import TOKEN_VALIDATION, Invalidate
from actors.runtime import Reject
from actors.storage.messages import Scan, Transact
from backends.ports.entities import Write
from gateway.admin.operations import Lookup, OperationError
from gateway.services.auth.records import CLIENT, client_of, digest, new_client_secret, new_token
from gateway.services.auth.writes import create_client, delete_client, issue_token, revoke_token
from gateway.services.events import Cause

_PAGE = 200
_OPERATOR = "operator"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class TokenOperations:
    """Args: *cached*: whether a cache manager runs beside us, whose entries a revocation must evict."""

    def __init__(self, lookup: Lookup, now: Callable[[], float], new_id: Callable[[], str], *, cached: bool) -> None:
        self._lookup = lookup
        self._now = now
        self._new_id = new_id
        self._cached = cached

    def by_name(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        return {
            "token.issue": self.issue,
            "token.revoke": self.revoke,
            "client.create": self.create,
            "client.list": self.clients,
            "client.delete": self.delete,
        }

    async def issue(self, subject: str, scopes: list[str], ttl: str) -> dict[str, Any]:
        token = new_token()
        record = await self._write(lambda: issue_token(subject, scopes, _seconds(ttl), token, self._cause()))
        return {"token": token, "expires_at": record.expires_at}

    async def revoke(self, token: str) -> dict[str, Any]:
        id = digest(token)
        known = await self._write(lambda: revoke_token(id, self._cause()))
        if self._cached:
            await self._lookup("cache_manager").ask(Invalidate(((TOKEN_VALIDATION, id),)), timeout=5.0)
        if not known:
            raise OperationError("there is no such token: it was never issued, has expired, or was revoked before")
        return {"revoked": True}

    async def create(self, name: str, scopes: list[str]) -> dict[str, Any]:
        id, secret = self._new_id(), new_client_secret()
        await self._write(lambda: create_client(id, name, scopes, secret, self._cause()))
        return {"client_id": id, "client_secret": secret}

    async def clients(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            page = await self._lookup("storage_scans").ask(Scan(CLIENT, after, _PAGE), timeout=10.0)
            for entity in page:
                record = client_of(entity)
                assert record is not None
                found.append({"client_id": record.id, "name": record.name, "scopes": record.scopes})
            if len(page) < _PAGE:
                return found
            after = page[-1].id

    async def delete(self, client_id: str) -> dict[str, Any]:
        try:
            await self._write(lambda: delete_client(client_id, self._cause()))
        except Reject as refusal:
            raise OperationError(f"there is no client {client_id!r}") from refusal
        return {"deleted": True}

    async def _write(self, make: Callable[[], Write]) -> Any:
        try:
            write = make()
        except ValueError as error:
            raise OperationError(str(error)) from None
        return await self._lookup("storage").ask(Transact(write), timeout=10.0)

    def _cause(self) -> Cause:
        ids = (self._new_id(), self._new_id(), self._new_id())
        return Cause(_OPERATOR, self._new_id(), self._now(), ids)


def elsewhere(operations: Mapping[str, Callable[..., Awaitable[Any]]], url: str) -> dict[str, Callable[..., Any]]:
    """*operations* where the Auth Service is not the built-in one: each says so in place of what it does."""

    def refusing(operation: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @wraps(operation)
        async def refuse(**_: Any) -> Any:
            raise OperationError(
                f"tokens and clients are those of the Auth Service behind auth.introspection_url ({url}): "
                "issue, list and revoke them there"
            )

        return refuse

    return {name: refusing(operation) for name, operation in operations.items()}


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write it like 90s, 15m, 1h or 7d")
    return float(match[1]) * _UNITS[match[2]]
