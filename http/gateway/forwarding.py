"""The headers a proxy takes away and adds, in both directions. Pure.

Sources: RFC 9110 §7.6 (hop-by-hop fields, Via), RFC 9113 §8.2.3 (cookies of HTTP/2 are several fields).
"""

from gateway.identity import identity_headers
from gateway.request import Headers, Request

_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    )
)
# Rewritten below, or the business of whoever frames the message.
_REWRITTEN = frozenset(
    (
        b"content-length",
        b"cookie",
        b"expect",
        b"traceparent",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-request-id",
    )
)
# Our server writes its own.
_RESPONSE_OURS = frozenset((b"date", b"server", b"x-request-id"))
_PSEUDONYM = b"weir"


def request_headers(request: Request, *, consumed_authorization: bool) -> Headers:
    """The headers to send on with *request*: end-to-end ones, `Host` as it was, where it came from, who calls.

    `X-Forwarded-For` continues the chain of a trusted proxy and else starts with the peer. With
    *consumed_authorization* the token stays here: it was checked, and a target that is not Weir's has no use
    for it but misuse. The identity headers stand for it.
    """
    dropped = _connection_options(request.headers) | _HOP_BY_HOP | _REWRITTEN
    headers = [item for item in request.headers if item[0] not in dropped]
    if consumed_authorization:
        headers = [item for item in headers if item[0] != b"authorization"]
    headers += _forwarded(request)
    headers += identity_headers(request.principal)
    cookies = [value for name, value in request.headers if name == b"cookie"]
    if cookies:
        headers.append((b"cookie", b"; ".join(cookies)))
    headers.append((b"x-request-id", request.id.encode()))
    if request.traceparent:
        headers.append((b"traceparent", request.traceparent.encode()))
    return headers


def response_headers(headers: Headers, *, head: bool) -> Headers:
    """The headers of a target's response to pass back. *head*: the answer to HEAD, whose content-length is
    that of the body a GET would have had; else our server counts the body itself."""
    dropped = _connection_options(headers) | _HOP_BY_HOP | _RESPONSE_OURS
    if not head:
        dropped |= {b"content-length"}
    kept = [item for item in headers if item[0] not in dropped]
    kept.append((b"via", b"1.1 " + _PSEUDONYM))
    return kept


def _forwarded(request: Request) -> Headers:
    peer = (request.peer or request.client).encode()
    chain = [value for name, value in request.headers if name == b"x-forwarded-for"]
    host = request.header(b"x-forwarded-host") or request.header(b"host") or b""
    via = [value for name, value in request.headers if name == b"via"]
    return [
        (b"x-forwarded-for", b", ".join([*chain, peer])),
        (b"x-forwarded-proto", request.scheme.encode()),
        (b"x-forwarded-host", host),
        (b"via", b", ".join([*via, request.http_version.encode() + b" " + _PSEUDONYM])),
    ]


def _connection_options(headers: Headers) -> frozenset[bytes]:
    """The fields that `Connection` declares to be for one hop only."""
    return frozenset(
        option.strip().lower() for name, value in headers if name == b"connection" for option in value.split(b",")
    )
