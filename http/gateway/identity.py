"""Who calls, as targets outside of Weir are told: `X-Weir-*` headers, which no caller can forge. Pure."""

from urllib.parse import quote

from actors.authenticator.messages import Principal
from gateway.request import Headers

SUBJECT = b"x-weir-subject"
SCOPES = b"x-weir-scopes"
# WSGI and CGI fold `_` and `-` into one name, so the other spelling would arrive as ours.
_RESERVED = (b"x-weir-", b"x_weir_", b"x-weir_", b"x_weir-")


def without_identity(headers: Headers) -> Headers:
    """*headers* without what only we may say; the same list when there is nothing to take away."""
    for name, _ in headers:
        if name.startswith(_RESERVED):
            return [item for item in headers if not item[0].startswith(_RESERVED)]
    return headers


def identity_headers(principal: Principal | None) -> Headers:
    """The subject percent-encoded where it is not visible ASCII, and the scopes, sorted, with spaces between."""
    if principal is None:
        return []
    subject = quote(principal.subject, safe="!#$&'()*+,/:;=?@[]^`{|}~<>\"\\")
    return [(SUBJECT, subject.encode("ascii")), (SCOPES, " ".join(sorted(principal.scopes)).encode())]
