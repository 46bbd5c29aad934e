"""The headers a proxy takes away and adds, in both directions. Pure.

Sources: RFC 9110 §7.6 (hop-by-hop fields, Via), RFC 7239 (Forwarded), RFC 9113 §8.2.3 (cookies of HTTP/2 are several
fields).
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
        b"forwarded",
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

    `Forwarded` and `X-Forwarded-For` continue the chain of a trusted proxy and else start with the peer. With
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
    """The headers of a target's response to pass back. *head*: they go out before the body, if there is one (the
    answer to HEAD, an answer that is streamed), so their content-length is kept; else our server counts the body."""
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
    hops = [value for name, value in request.headers if name == b"forwarded"]
    hops.append(_hop(peer, host, request.scheme.encode()))
    return [
        (b"forwarded", b", ".join(hops)),
        (b"x-forwarded-for", b", ".join([*chain, peer])),
        (b"x-forwarded-proto", request.scheme.encode()),
        (b"x-forwarded-host", host),
        (b"via", b", ".join([*via, request.http_version.encode() + b" " + _PSEUDONYM])),
    ]


def _hop(peer: bytes, host: bytes, scheme: bytes) -> bytes:
    """One element of `Forwarded` (RFC 7239 §4). A peer without an address is "unknown"."""
    if b":" in peer:
        peer = b'"[' + peer + b']"'
    elif not peer[:1].isdigit():
        peer = b"unknown"
    if host.translate(None, b'"\\') != host:
        host = b""
    return b"for=" + peer + (b';host="' + host + b'"' if host else b"") + b";proto=" + scheme


def _connection_options(headers: Headers) -> frozenset[bytes]:
    """The fields that `Connection` declares to be for one hop only."""
    return frozenset(
        option.strip().lower() for name, value in headers if name == b"connection" for option in value.split(b",")
    )
