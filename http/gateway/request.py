"""The request and the response as the stages see them, free of ASGI and of any server."""

import math
from dataclasses import dataclass, field
from typing import Protocol

from actors.authenticator.messages import Principal

Headers = list[tuple[bytes, bytes]]


class ClientGone(OSError):
    """The client left, or took nothing of what is sent to it: there is nobody to answer."""


def body_wait(timeout: float, rate: float, received: int, waited: float) -> float:
    """Seconds that the next part of a body may take. It may stand still for *timeout*, and all its waits together
    get what *rate* (bytes a second; 0: whatever they take) grants for the *received* bytes, beyond that. Pure."""
    granted = timeout + received / rate if rate else math.inf
    return max(0.0, min(timeout, granted - waited))


class Duplex(Protocol):
    """A connection that no longer speaks HTTP: bytes both ways. Both may raise ClientGone."""

    async def receive(self) -> bytes:
        """What has come; b"" at its end. Bytes the client sent right behind its request come first."""
        ...

    async def send(self, data: bytes) -> None: ...


class Wire(Protocol):
    """The client's side of one request, for targets that stream. One task receives, one sends.

    `has_body`: whether the client may send one; `length` its size if it was told. `body_limit`: bytes; may be
    set until the first `receive`. `switches`: whether `switch` is possible (HTTP/1.1).
    """

    has_body: bool
    length: int | None
    body_limit: int
    switches: bool

    async def receive(self) -> bytes:
        """The next part of the body, b"" at its end. Raises ProblemError (400, 408, 413) and ClientGone."""
        ...

    async def read(self) -> bytes:
        """All of the body that `receive` has not given. Raises like it."""
        ...

    async def wait_closed(self) -> None:
        """Return when the client has gone. Cancel it when that is of no interest any more."""
        ...

    async def start(self, response: "Response") -> None:
        """Send the head of an answer whose body follows by `write`. A `content-length` in it must be kept to."""
        ...

    async def write(self, data: bytes) -> None:
        """Send a part of the body; returns when the client (or the kernel for it) took it. Raises ClientGone."""
        ...

    async def switch(self, response: "Response") -> Duplex:
        """Answer 101 and leave HTTP."""
        ...

    def cut(self) -> None:
        """The answer that was started cannot be finished: the client must not take it for whole."""
        ...


@dataclass(slots=True)
class Request:
    """One request. `path` is canonical (see `paths.py`); header names are lower case; `id` names it in
    logs, audits and problems. `principal` is set after authentication.

    `body` is there for targets that do not stream; others read it from `wire`, which only a server gives.
    """

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
    wire: Wire | None = None

    def header(self, name: bytes) -> bytes | None:
        """The first value of *name* (lower case), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


@dataclass(slots=True)
class Response:
    """One response. Header names are lower case. `date` and `server` are the server's business, and so is
    `content-length`, but in an answer to HEAD or one that is streamed.

    `sent`: it went out through the request's `wire` already.
    """

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    sent: bool = False
