"""Calling webhooks: Standard Webhooks 1.0 on httpx, guarded against server-side request forgery.

The host is resolved here, its addresses are judged, and the connection goes to the very address that was
judged: a name that resolves differently a moment later (DNS rebinding) reaches nothing else. There is no
client above the transport: no redirects, no cookies, no proxies from the environment, no shared connections
(two names on one address must not share a TLS session that was verified for one of them).
"""

import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import httpx
import trio

from actors.consumers.failure import Failure, failure_of
from actors.consumers.notification.addresses import is_public
from actors.consumers.notification.deliveries_of import Webhook
from actors.consumers.notification.outcomes import Failed, Gone, Outcome, Refused, Sent, retry_after
from actors.consumers.notification.signature import InvalidSecret, sign_all
from backends.ports.stores import Delivery

BODY_LIMIT = 512
"""Bytes. Longer answers are not read; a short one becomes the error's text."""

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of *host*, in the system's order. Raises OSError."""
    found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class Forbidden(Exception):
    """The endpoint is one that webhooks may not reach."""


class WebhookSender:
    """Makes one signed POST an attempt.

    Args:
        allow_private: whether endpoints on loopback and private addresses may be called.
        timeout: seconds for the whole call, resolution included.
        now: Unix seconds, for the signature's timestamp.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        timeout: float = 15.0,
        resolver: Resolver = resolve,
        tls: ssl.SSLContext | None = None,
        now: Callable[[], float] = time.time,
        user_agent: str = "weir-webhooks/1.0",
    ) -> None:
        self._allow_private = allow_private
        self._timeout = timeout
        self._resolve = resolver
        self._now = now
        self._user_agent = user_agent
        self._transport = httpx.AsyncHTTPTransport(
            verify=tls or ssl.create_default_context(),
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def send(self, webhook: Webhook, delivery: Delivery) -> Outcome:
        try:
            with trio.move_on_after(self._timeout) as scope:
                return await self._call(webhook, delivery)
        except (Forbidden, InvalidSecret, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            return Refused(failure_of(error))
        except Exception as error:
            return Failed(failure_of(error))
        assert scope.cancelled_caught
        return Failed(Failure("TimeoutError", f"no answer within {self._timeout} s"))

    async def _call(self, webhook: Webhook, delivery: Delivery) -> Outcome:
        url = httpx.URL(webhook.url)
        if url.scheme not in ("http", "https") or not url.host:
            raise Forbidden("a webhook's URL is http:// or https:// and names a host")
        headers = self._headers(webhook, delivery, url)
        failure: Exception = httpx.ConnectError("the host has no address")
        for address in await self._addresses(url):
            request = httpx.Request(
                "POST",
                url.copy_with(host=address),
                headers=headers,
                stream=_Body(delivery.payload),
                extensions={"sni_hostname": url.raw_host.decode("ascii")},
            )
            try:
                response = await self._transport.handle_async_request(request)
            except httpx.ConnectError as error:
                failure = error  # nothing was sent: the host's next address may answer
                continue
            return await self._outcome(response)
        raise failure

    async def _addresses(self, url: httpx.URL) -> Sequence[str]:
        """Where to connect to. Raises Forbidden when any of the host's addresses is not public: a name that
        mixes them is aimed at the one it hides."""
        port = url.port or (443 if url.scheme == "https" else 80)
        # Numbers in disguise (2130706433, 0x7f.1) are resolved like names, and judged by what comes out.
        addresses = await self._resolve(url.raw_host.decode("ascii").strip("[]"), port)
        if not self._allow_private:
            for address in addresses:
                if not is_public(address):
                    raise Forbidden(f"{url.host} is {address}, which is not a public address")
        return addresses

    def _headers(self, webhook: Webhook, delivery: Delivery, url: httpx.URL) -> dict[str, str]:
        now = self._now()
        timestamp = int(now)  # of this attempt: receivers refuse what is older than minutes
        return {
            "host": url.netloc.decode("ascii"),
            "user-agent": self._user_agent,
            "accept": "*/*",
            "connection": "close",
            "content-type": "application/json",
            "content-length": str(len(delivery.payload)),
            "webhook-id": delivery.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign_all(webhook.secrets(now), delivery.id, timestamp, delivery.payload),
        }

    async def _outcome(self, response: httpx.Response) -> Outcome:
        try:
            if response.is_success:
                return Sent()
            error = Failure("HTTPStatus", f"{response.status_code} {await _text(response)}".strip())
        finally:
            await response.aclose()
        if response.status_code == httpx.codes.GONE:
            return Gone(error)
        return Failed(error, retry_after(response.headers.get("retry-after", ""), self._now()))


class _Body(httpx.AsyncByteStream):
    """The content of a request, for one call: an iterator that may be left when the connection breaks. httpx's own is
    an async generator, whose remains trio would have to look for."""

    def __init__(self, content: bytes) -> None:
        self._left = [content]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


async def _text(response: httpx.Response) -> str:
    """The body where it is announced and short, else nothing: a receiver cannot make us read more.

    A body is read whole or not at all, since httpx's generators cannot be left half way.
    """
    length = response.headers.get("content-length", "")
    if not (length.isascii() and length.isdigit() and 0 < int(length[:9]) <= BODY_LIMIT):
        return ""
    try:
        return b"".join([chunk async for chunk in response.aiter_raw()]).decode("utf-8", "replace")
    except httpx.HTTPError:
        return ""  # the status says enough
