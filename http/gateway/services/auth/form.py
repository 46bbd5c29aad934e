"""The requests of the OAuth endpoints: form bodies, client credentials, errors (RFC 6749 §2.3, §5.2). Pure."""

import base64
import binascii
from urllib.parse import parse_qsl, unquote_plus

import msgspec

from gateway.request import Headers, Request, Response
from gateway.services.operation import FORM

NO_STORE: Headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), (b"pragma", b"no-cache")]
_MAX_FIELDS = 32


class OAuthError(Exception):
    """An error as RFC 6749 §5.2 answers it: `error` is one of its codes, `description` for people."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(error, description)
        self.error = error
        self.description = description
        self.status = status

    def response(self) -> Response:
        headers = list(NO_STORE)
        if self.status == 401:
            headers.append((b"www-authenticate", b'Basic realm="weir", charset="UTF-8"'))
        body = msgspec.json.encode({"error": self.error, "error_description": self.description})
        return Response(self.status, headers, body)


class Credentials(msgspec.Struct, frozen=True):
    client_id: str
    secret: str


def parse_form(request: Request) -> dict[str, str]:
    """The parameters of the body; empty ones count as absent, doubled ones are an error (§3.2)."""
    media = (request.header(b"content-type") or b"").split(b";")[0].strip().lower()
    if media != FORM.encode():
        raise OAuthError("invalid_request", f"the body must be {FORM}")
    if request.query:
        raise OAuthError("invalid_request", "parameters belong in the body, not in the URL")
    try:
        pairs = (
            parse_qsl(
                request.body.decode("ascii"),
                keep_blank_values=True,
                strict_parsing=True,
                errors="strict",
                max_num_fields=_MAX_FIELDS,
            )
            if request.body
            else []
        )
    except ValueError:
        raise OAuthError("invalid_request", "the body is not a form") from None
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise OAuthError("invalid_request", f"parameter {name[:40]!r} is there twice")
    return {name: value for name, value in pairs if value}


def credentials(request: Request, form: dict[str, str]) -> Credentials:
    """Who the client says it is, from HTTP Basic or from the body, but not from both (§2.3)."""
    header = request.header(b"authorization")
    if header is None:
        if "client_id" in form and "client_secret" in form:
            return Credentials(form["client_id"], form["client_secret"])
        raise _unauthenticated("client credentials are required")
    if "client_secret" in form:
        raise OAuthError("invalid_request", "the client authenticates in two ways at once")
    found = _basic(header)
    if form.get("client_id", found.client_id) != found.client_id:
        raise OAuthError("invalid_request", "client_id is not the client that authenticates")
    return found


def _basic(header: bytes) -> Credentials:
    scheme, _, encoded = header.partition(b" ")
    if scheme.lower() != b"basic":
        raise _unauthenticated("clients authenticate with HTTP Basic or in the body")
    try:
        id, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        if not colon:
            raise ValueError("no colon")
        # RFC 6749 §2.3.1: both are form-encoded before they are put together.
        return Credentials(unquote_plus(id, errors="strict"), unquote_plus(secret, errors="strict"))
    except (binascii.Error, ValueError):
        raise _unauthenticated("the Basic credentials are malformed") from None


def _unauthenticated(description: str) -> OAuthError:
    return OAuthError("invalid_client", description, 401)


def wrong_credentials() -> OAuthError:
    # One answer for both, so that nobody learns which clients there are.
    return _unauthenticated("unknown client or wrong secret")
