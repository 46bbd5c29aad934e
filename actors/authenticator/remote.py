"""An Auth Service elsewhere, asked over HTTP (RFC 7662 §2.1).

Below httpx's client, on its transport: no redirects, no cookies, no proxies from the environment, no waits of its own.
Whoever answers may be anybody, so an answer is read as far as a response can be long.
"""

import base64
import ssl
from urllib.parse import quote_plus, urlencode

import httpx
import trio

from actors.authenticator.messages import AuthServiceAway, UnusableAnswer

BODY_LIMIT = 64 * 1024
"""Bytes of a response; a token with a thousand scopes has less."""
_IDLE_S = 30.0
_ABOUT_THE_TOKEN = frozenset((400, 413, 414, 422, 431))
"""What a service may find wrong with a single token."""
_DROPPED = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


def basic(client_id: str, secret: str) -> str:
    """HTTP Basic as OAuth has it: both are form-encoded before they are put together (RFC 6749 §2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


class RemoteAuthService:
    """One service by its introspection endpoint. Not restricted in time: the caller has the deadline.

    Args:
        authorization: what `Authorization` carries towards it; empty: nothing.
        connections: the most at once.
    """

    def __init__(self, url: str, authorization: str, *, connections: int, tls: ssl.SSLContext | None = None) -> None:
        self._url = httpx.URL(url)
        self._headers = {
            "host": self._url.netloc.decode("ascii"),
            "user-agent": "weir/1.0",
            "accept": "application/json",
            "accept-encoding": "identity",
            "content-type": "application/x-www-form-urlencoded",
        }
        if authorization:
            self._headers["authorization"] = authorization
        self._transport = httpx.AsyncHTTPTransport(
            verify=tls or ssl.create_default_context(),
            trust_env=False,
            limits=httpx.Limits(
                max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_IDLE_S
            ),
        )

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def introspect(self, token: bytes) -> bytes:
        """The body of a 200, at most `BODY_LIMIT` bytes and a chunk. Raises AuthServiceAway or UnusableAnswer."""
        form = urlencode({"token": token, "token_type_hint": "access_token"}).encode()
        try:
            try:
                return await self._post(form)
            except _DROPPED:
                # A kept connection may have been closed as the request went out; asking twice changes nothing there.
                return await self._post(form)
        except (AuthServiceAway, UnusableAnswer):
            raise
        except Exception as error:
            raise AuthServiceAway(f"it cannot be asked: {_told(error)}") from error

    async def _post(self, form: bytes) -> bytes:
        request = httpx.Request("POST", self._url, headers=self._headers, content=form)
        response = await self._transport.handle_async_request(request)
        try:
            _check(response)
            return await _read(response)
        finally:
            with trio.move_on_after(1, shield=True):
                await response.aclose()


def _check(response: httpx.Response) -> None:
    status = response.status_code
    if status in (401, 403):
        why = f"it refuses our credentials with {status}: see auth.introspection_client_id or auth.introspection_token"
        raise AuthServiceAway(why, refused=True)
    if status in _ABOUT_THE_TOKEN:
        raise UnusableAnswer(f"it answers with {status}")
    if status != 200:
        raise AuthServiceAway(f"it answers with {status}" + (", a redirect" if 300 <= status < 400 else ""))
    if response.headers.get("content-encoding", "identity") != "identity":
        raise AuthServiceAway("it compresses its answer, which was asked not to be")


async def _read(response: httpx.Response) -> bytes:
    """The body. One that is too long is left by cancellation: httpx's generators cannot be left half way else."""
    body = bytearray()
    with trio.CancelScope() as scope:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > BODY_LIMIT:
                scope.cancel()
    if len(body) > BODY_LIMIT:
        raise AuthServiceAway(f"its answer is longer than {BODY_LIMIT} bytes")
    return bytes(body)


def _told(error: Exception) -> str:
    """*error* in a line; httpx's connect errors on trio say nothing, their cause does."""
    cause: BaseException | None = error
    while cause is not None and not str(cause):
        cause = cause.__cause__
    return f"{type(error).__name__}: {cause}" if cause is not None else type(error).__name__
