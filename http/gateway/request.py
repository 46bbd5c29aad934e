"""The request and the response as the stages see them, free of ASGI and of any server."""

from dataclasses import dataclass, field

from actors.authenticator.messages import Principal

Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Request:
    """One request. `path` is canonical (see `paths.py`); header names are lower case; `id` names it in
    logs, audits and problems. `principal` is set after authentication."""

    method: str
    path: str
    query: bytes
    headers: Headers
    body: bytes
    client: str
    """The caller's address: the peer's, or the forwarded one behind a trusted proxy."""
    id: str
    scheme: str = "http"
    http_version: str = "1.1"
    peer: str = ""
    """Who connected to us: the caller, or a proxy. `X-Forwarded-*` headers are here only if it is a trusted one."""
    traceparent: str = ""
    principal: Principal | None = None

    def header(self, name: bytes) -> bytes | None:
        """The first value of *name* (lower case), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


@dataclass(slots=True)
class Response:
    """One response. Header names are lower case. `content-length`, `date` and `server` are the server's business."""

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes = b""
