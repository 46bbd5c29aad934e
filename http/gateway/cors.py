"""Cross-origin resource sharing: what a browser's page of another origin may read. Pure.

Source: the Fetch standard, §3.2 (CORS protocol), and whatwg/fetch#564 for `Vary`. Outermost of all stages, so
that errors carry it too: else a browser shows "CORS error" in place of the 401 or 429.
"""

import re
from dataclasses import dataclass

from gateway.request import Headers, Request, Response

METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
EXPOSED = (
    b"RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, X-Request-Id, ETag, Location, Idempotency-Replayed"
)
_PREFLIGHT_VARY = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
_HEADER_NAMES = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:[ \t]*,[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+)*")
_MAX_HEADER_NAMES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsPolicy:
    """Who may read answers from a page. *origins* are exact, `scheme://host[:port]`; `*` is everyone.

    `max_age`: seconds a browser may remember a preflight. Raises ValueError for `*` with credentials: any
    page could then act as the user who looks at it.
    """

    origins: frozenset[str] = frozenset()
    allow_credentials: bool = False
    max_age: int = 600

    def __post_init__(self) -> None:
        if self.allow_credentials and "*" in self.origins:
            raise ValueError("cors: origins = ['*'] and allow_credentials exclude each other")

    def allows(self, origin: bytes | None) -> bytes | None:
        """The value of Access-Control-Allow-Origin for a request of *origin*; None: no such header.

        `null` (sandboxed frames, files) is an origin like any other and allowed only if it is listed.
        """
        if "*" in self.origins:
            return b"*"
        return origin if origin is not None and origin.decode("latin-1") in self.origins else None


def is_preflight(request: Request) -> bool:
    """A browser asks before it sends: OPTIONS with Origin and Access-Control-Request-Method."""
    return (
        request.method == "OPTIONS"
        and request.header(b"origin") is not None
        and request.header(b"access-control-request-method") is not None
    )


def preflight(policy: CorsPolicy, request: Request) -> Response:
    """The answer to a preflight: 204. An origin that is not allowed gets no Access-Control headers, which is a no."""
    headers: Headers = [(b"vary", _PREFLIGHT_VARY)]
    allowed = policy.allows(request.header(b"origin"))
    if allowed is None:
        return Response(204, headers)
    headers.append((b"access-control-allow-origin", allowed))
    headers.append((b"access-control-allow-methods", METHODS))
    headers.append((b"access-control-max-age", b"%d" % policy.max_age))
    asked = request.header(b"access-control-request-headers")
    if asked is not None and len(asked) <= _MAX_HEADER_NAMES and _HEADER_NAMES.fullmatch(asked) is not None:
        # Authorization is never covered by a `*` here, so what was asked for is named.
        headers.append((b"access-control-allow-headers", asked))
    if policy.allow_credentials:
        headers.append((b"access-control-allow-credentials", b"true"))
    return Response(204, headers)


def decorate(policy: CorsPolicy, origin: bytes | None, headers: Headers) -> Headers:
    """The headers of a response to a request of *origin*: those given, without a target's own CORS headers
    (which would be duplicated, or be of another policy), with ours.

    `Vary: Origin` goes on every response, also without an Origin and with a denied one: a cache must not give
    the answer to one of them to another.
    """
    kept = [item for item in headers if not item[0].startswith(b"access-control-")]
    _vary_by_origin(kept)
    allowed = policy.allows(origin)
    if allowed is not None:
        kept.append((b"access-control-allow-origin", allowed))
        kept.append((b"access-control-expose-headers", EXPOSED))
        if policy.allow_credentials:
            kept.append((b"access-control-allow-credentials", b"true"))
    return kept


def _vary_by_origin(headers: Headers) -> None:
    for index, (name, value) in enumerate(headers):
        if name == b"vary":
            known = {field.strip().lower() for field in value.split(b",")}
            if known.isdisjoint((b"origin", b"*")):
                headers[index] = (name, value + b", Origin" if value.strip() else b"Origin")
            return
    headers.append((b"vary", b"Origin"))
