"""What is sent to an upstream for one request: its head as bytes, and its body, whole or in parts."""

import re

from actors.router.messages import Resolved
from gateway.forwarding import request_headers
from gateway.problem import ProblemError
from gateway.proxy.retries import may_repeat
from gateway.request import Request, Wire

# The head as a whole, so that no byte of a request that came by HTTP/2 can end a line here that was none there.
_HEAD = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [\x21-\x7e\x80-\xff]+ HTTP/1\.1\r\n"
    rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [^\r\n\x00]*\r\n)+"
)


class Outgoing:
    """One request as it goes out. `upgrade`: it asks for a WebSocket that the client's wire can become."""

    __slots__ = ("_head", "_headers", "body", "consumed", "method", "source", "upgrade")

    def __init__(self, request: Request, resolved: Resolved) -> None:
        self.method = request.method
        self.body = request.body
        """All of it, or with a *source* its first part."""
        self.source: Wire | None = None
        """Gives the rest of the body."""
        self.consumed = False
        """A part of the body was taken from the source for one try, and is there for no other."""
        self.upgrade = wants_websocket(request)
        self._headers = request_headers(request, consumed_authorization=resolved.route.auth != "none")
        target = request.path.encode("ascii") + (b"?" + request.query if request.query else b"")
        self._head = b"%b %b HTTP/1.1\r\n" % (request.method.encode("ascii"), target)

    async def load(self, request: Request, whole: int) -> None:
        """Read a body of at most *whole* bytes, and the first part of a longer one: so that a request that is
        refused for its body troubles nobody. Raises what the wire raises."""
        wire = request.wire
        if wire is None or not wire.has_body:
            length = len(self.body)
        elif wire.length is not None and wire.length <= whole:
            self.body = await wire.read()
            length = len(self.body)
        else:
            self.body = await wire.receive()
            if self.body:
                self.source = wire
            length = wire.length if wire.length is not None else -1 if self.body else 0
        if length < 0:
            self._headers.append((b"transfer-encoding", b"chunked"))
        elif length or self.method in ("POST", "PUT", "PATCH"):
            self._headers.append((b"content-length", b"%d" % length))
        if self.upgrade:
            self._headers += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]

    @property
    def chunked(self) -> bool:
        return self.source is not None and self.source.length is None

    def first(self, authority: bytes) -> bytes:
        """The head and what is there of the body. *authority*: `Host` of a request that had none (HTTP/1.0).

        Raises ProblemError (400) for a request that cannot be written in HTTP/1.1.
        """
        lines = [b"%b: %b\r\n" % header for header in self._headers]
        if not any(name == b"host" for name, _ in self._headers):
            lines.insert(0, b"host: %b\r\n" % authority)
        head = self._head + b"".join(lines)
        if head.count(b"\r\n") != len(lines) + 1 or _HEAD.fullmatch(head) is None:
            raise ProblemError(400, "the request's head holds a character that cannot be passed on")
        return head + b"\r\n" + (self.framed(self.body) if self.body else b"")

    def framed(self, part: bytes) -> bytes:
        """A part of the body as it is sent; the end is an empty one."""
        if not self.chunked:
            return part
        return b"%x\r\n%b\r\n" % (len(part), part)

    def may_repeat(self, *, sent: bool) -> bool:
        return may_repeat(self.method, sent=sent, consumed=self.consumed)


def wants_websocket(request: Request) -> bool:
    """Whether it is a WebSocket handshake of HTTP/1.1 (RFC 6455 §4.1) on a connection that can become one."""
    if request.method != "GET" or request.wire is None or not request.wire.switches:
        return False
    upgrade = request.header(b"upgrade")
    if upgrade is None or upgrade.strip().lower() != b"websocket":
        return False
    return any(
        option.strip().lower() == b"upgrade"
        for name, value in request.headers
        if name == b"connection"
        for option in value.split(b",")
    )
