"""The Auth Service (`oauth`): tokens for client credentials, introspection, revocation."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from actors.authenticator.messages import Introspect, Principal
from actors.cache_manager.messages import TOKEN_VALIDATION
from actors.metrics import Metrics
from actors.runtime import Later, Reject
from actors.storage.messages import Read
from backends.ports.entities import Entity, Key
from gateway.request import Response
from gateway.services.answers import Absent
from gateway.services.auth import writes
from gateway.services.auth.form import NO_STORE, OAuthError, credentials, parse_form, wrong_credentials
from gateway.services.auth.records import (
    CLIENT,
    CLIENT_ID,
    TOKEN,
    ClientRecord,
    TokenRecord,
    client_of,
    digest,
    new_token,
    parse_scope,
    principal,
    secret_matches,
    token_of,
    valid,
)
from gateway.services.operation import FORM, Call, Operation, Reply
from gateway.services.service import Service


class TokenRequest(msgspec.Struct, frozen=True):
    """RFC 6749 §4.4.2. Credentials in HTTP Basic or in the body."""

    grant_type: Literal["client_credentials"]
    scope: str = ""
    client_id: str = ""
    client_secret: str = ""


class TokenResponse(msgspec.Struct, frozen=True):
    """RFC 6749 §5.1. `expires_in` is in seconds."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str


class TokenParameter(msgspec.Struct, frozen=True):
    """The request of introspection and revocation (RFC 7662 §2.1, RFC 7009 §2.1)."""

    token: Annotated[str, msgspec.Meta(min_length=1)]
    token_type_hint: str = ""
    client_id: str = ""
    client_secret: str = ""


class Introspection(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 7662 §2.2. Of a token that is not active, nothing else is said. Times are Unix seconds."""

    active: bool
    scope: str = ""
    client_id: str = ""
    sub: str = ""
    token_type: str = ""
    exp: int = 0
    iat: int = 0


class OAuth(Service):
    """Issues, introspects and revokes opaque tokens. Answers `Introspect` too: with a `Principal`, None, or
    `Reject` of what went wrong (which says nothing about the token). *token_ttl* in seconds."""

    prefix = "/oauth"
    noun = TOKEN

    def __init__(
        self, *, new_id: Callable[[], str], now: Callable[[], float], metrics: Metrics, token_ttl: float = 3600.0
    ) -> None:
        super().__init__(new_id=new_id, now=now, metrics=metrics)
        self._token_ttl = token_ttl

    def receive(self, message: Any) -> Any:
        if not isinstance(message, Introspect):
            return super().receive(message)
        later = self.later()
        self.spawn(self._introspect, later, message.digest)
        return later

    def failure(self, call: Call, error: Exception) -> Response:
        return error.response() if isinstance(error, OAuthError) else super().failure(call, error)

    async def token(self, call: Call) -> Response:
        form, client = await self._authenticated(call)
        grant = form.get("grant_type")
        if grant is None:
            raise OAuthError("invalid_request", "grant_type is required")
        if grant != "client_credentials":
            raise OAuthError("unsupported_grant_type", "only client_credentials is possible")
        try:
            scopes = parse_scope(form["scope"]) if "scope" in form else client.scopes
        except ValueError as error:
            raise OAuthError("invalid_scope", str(error)) from None
        excess = [scope for scope in scopes if scope not in client.scopes]
        if excess:
            raise OAuthError("invalid_scope", f"this client may not have {' '.join(excess)}")
        token = new_token()
        write = writes.issue_token(client.id, scopes, self._token_ttl, token, self.cause(call), client.id)
        try:
            await self.write(write)
        except Reject as refusal:
            if isinstance(refusal.error, Absent):  # deleted since its secret was checked
                raise wrong_credentials() from None
            raise
        return _answer(TokenResponse(token, "Bearer", int(self._token_ttl), " ".join(scopes)))

    async def introspect(self, call: Call) -> Response:
        form, _ = await self._authenticated(call)
        record = await self._valid_token(digest(_token(form)))
        if record is None:
            return _answer(Introspection(active=False))
        return _answer(
            Introspection(
                active=True,
                scope=" ".join(record.scopes),
                client_id=record.client_id,
                sub=record.subject,
                token_type="Bearer",  # noqa: S106 - the type, not a token
                exp=int(record.expires_at),
                iat=int(record.issued_at),
            )
        )

    async def revoke(self, call: Call) -> Response:
        form, client = await self._authenticated(call)
        id = digest(_token(form))
        try:
            cause = self.cause(call)
            await self.write(writes.revoke_token(id, cause, client.id), (TOKEN_VALIDATION, id), cause=cause)
        except Reject as refusal:
            if isinstance(refusal.error, writes.NotYours):
                raise OAuthError("unauthorized_client", "the token was issued to another client") from None
            raise
        return Response(200, list(NO_STORE[1:]))

    async def _authenticated(self, call: Call) -> tuple[dict[str, str], ClientRecord]:
        """The form and the client that sent it. Audits name the client as soon as it has proved itself."""
        form = parse_form(call.request)
        given = credentials(call.request, form)
        entity = await self._read(CLIENT, given.client_id) if CLIENT_ID.fullmatch(given.client_id) else None
        client = client_of(entity)
        if not secret_matches(client, given.secret) or client is None:
            raise wrong_credentials()
        call.subject = client.id
        return form, client

    async def _introspect(self, later: Later, id: str) -> None:
        try:
            record = await self._valid_token(id)
            found: Principal | None = None if record is None else principal(record, id)
        except Reject as refusal:
            later.fail(refusal.error)
        except Exception as error:
            later.fail(error)
        else:
            later.answer(found)

    async def _valid_token(self, id: str) -> TokenRecord | None:
        record = token_of(await self._read(TOKEN, id))
        client = await self._read(CLIENT, record.client_id) if record is not None and record.client_id else None
        return record if valid(record, client, self.now()) else None

    async def _read(self, kind: str, id: str) -> Entity | None:
        entity: Entity | None = await self.lookup("storage_reader").ask(Read(Key(kind, id)))
        return entity

    operations = (
        Operation(
            method="POST",
            path="/token",
            name="issueToken",
            summary="An access token for client credentials (RFC 6749 §4.4).",
            handler=token,
            action="token.issue",
            entity="token",
            writes=True,
            request=TokenRequest,
            media=(FORM,),
            example={"grant_type": "client_credentials", "scope": "users:read"},
            replies=(
                Reply(
                    200,
                    "The token.",
                    TokenResponse,
                    example={
                        "access_token": "weir_…",
                        "token_type": "Bearer",
                        "expires_in": 3600,
                        "scope": "users:read",
                    },
                ),
            ),
            security="client",
        ),
        Operation(
            method="POST",
            path="/introspect",
            name="introspectToken",
            summary="What a token is worth (RFC 7662).",
            handler=introspect,
            action="token.introspect",
            entity="token",
            request=TokenParameter,
            media=(FORM,),
            example={"token": "weir_…"},
            replies=(Reply(200, "Its state.", Introspection, example={"active": False}),),
            security="client",
        ),
        Operation(
            method="POST",
            path="/revoke",
            name="revokeToken",
            summary="End a token (RFC 7009). Unknown tokens are no error.",
            handler=revoke,
            action="token.revoke",
            entity="token",
            writes=True,
            request=TokenParameter,
            media=(FORM,),
            example={"token": "weir_…"},
            replies=(Reply(200, "It is not valid any more."),),
            security="client",
        ),
    )


def _token(form: dict[str, str]) -> str:
    if "token" not in form:
        raise OAuthError("invalid_request", "token is required")
    return form["token"]


def _answer(value: msgspec.Struct) -> Response:
    return Response(200, list(NO_STORE), msgspec.json.encode(value))
