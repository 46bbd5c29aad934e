"""Bytes of a connection in, requests out. Pure.

llhttp (through httptools) reads the syntax, strictly; what it leaves open is decided here: sizes, `Host`, lengths in
HTTP/1.0, trailers (ignored), offers to upgrade (the request is answered in HTTP/1.1), what follows a last request
(nothing). Sources: RFC 9112, and its §11 for what smuggling is made of.
"""

import re
from collections import deque
from dataclasses import dataclass, field

import httptools

from gateway.request import Headers

_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%-]*(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_METHOD_LINE = re.compile(rb"[A-Z][A-Z-]{0,31} \S+ HTTP/1\.[01]\r\n")
_FRAMING = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect", b"upgrade"))
_NAMES = {b"GET": "GET", b"HEAD": "HEAD", b"POST": "POST", b"PUT": "PUT", b"DELETE": "DELETE", b"PATCH": "PATCH"}

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLimits:
    """Of a request's head: bytes in all, and how many fields."""

    size: int = 32 * 1024
    fields: int = 128


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What came is no request. *status*: 400, 431, 501 or 505."""

    status: int


class _Stop(Exception):
    """Leaves llhttp from inside a callback; the reason is in `RequestParser.error`."""


class Message:
    """One request as it was read so far: its head whole, its body in `parts` as it comes."""

    __slots__ = (
        "chunked", "complete", "expects_continue", "headers", "keep_alive", "length", "method", "parts", "target",
        "upgrade", "version",
    )  # fmt: skip

    def __init__(self) -> None:
        self.method = ""
        self.target = b""
        self.version = ""
        self.headers: Headers = []
        """Names in lower case, values without surrounding white space."""
        self.keep_alive = False
        self.upgrade = b""
        """What `Upgrade` asks for, in lower case, if `Connection` names it; b"" for nothing."""
        self.length: int | None = None
        """Of the body, as told; None: not told."""
        self.chunked = False
        self.expects_continue = False
        self.parts: list[bytes] = []
        self.complete = False

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.length)


@dataclass(slots=True)
class _Fields:
    """Of the head being read: what decides about its framing, and its size."""

    size: int = 0
    count: int = 0
    hosts: list[bytes] = field(default_factory=list)
    codings: list[bytes] = field(default_factory=list)


class RequestParser:
    """Feed it what was received; take the requests from `messages`, each once its head is whole.

    `error` is set when what came cannot be read any further: it follows the messages before it. `rest`: what followed
    a request that leaves HTTP (a WebSocket's handshake); after that it is fed no more.
    """

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self.messages: deque[Message] = deque()
        self.error: Unreadable | None = None
        self.rest: bytes | None = None
        self._message = Message()
        self._fields: _Fields | None = None
        self._unfinished = 0  # bytes fed since a head began
        self._parser = httptools.HttpRequestParser(self)

    @property
    def in_head(self) -> bool:
        """Whether the beginning of a request is there and the end of its head is not."""
        return self._fields is not None

    def feed(self, data: bytes) -> None:
        """Take more of the connection. Raises nothing: see `error`."""
        if self.error is not None or self.rest is not None:
            if self.rest is not None:
                self.rest += data
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._after_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._fail(data, error)
        if self._fields is not None:
            self._unfinished += len(data)
            # A field that never ends is not told to us before it does. (The first read may hold other requests, too.)
            if self._unfinished > self._limits.size + 64 * 1024:
                self.error = Unreadable(431)

    def _after_upgrade(self, rest: bytes) -> None:
        if self._message.upgrade == b"websocket":
            self.rest = rest
        else:  # an offer that is not taken (RFC 9110 §7.8): HTTP/1.1 goes on
            self._parser = httptools.HttpRequestParser(self)
            if rest:
                self.feed(rest)

    def _fail(self, data: bytes, error: Exception) -> None:
        if self.error is not None:  # ours, from a callback
            return
        last = self._message
        if last.complete and not last.keep_alive and self._fields is None:
            return  # what follows a last request is nobody's
        if isinstance(error, httptools.HttpParserInvalidMethodError) and _METHOD_LINE.match(data):
            self.error = Unreadable(501)
        elif "HTTP version" in str(error) or "PRI" in str(error):
            self.error = Unreadable(505)
        else:
            self.error = Unreadable(400)

    def _refuse(self, status: int) -> None:
        self.error = Unreadable(status)
        raise _Stop

    # Called by httptools.

    def on_message_begin(self) -> None:
        self._message = Message()
        self._fields = _Fields()
        self._unfinished = 0

    def on_url(self, url: bytes) -> None:
        message = self._message
        message.target += url
        if len(message.target) > self._limits.size:
            self._refuse(431)

    def on_header(self, name: bytes, value: bytes) -> None:
        fields = self._fields
        if fields is None:
            return  # a trailer
        name = name.lower()
        if value[-1:] in b" \t":
            value = value.rstrip(b" \t")
        fields.size += len(name) + len(value) + 4
        fields.count += 1
        if fields.size > self._limits.size or fields.count > self._limits.fields:
            self._refuse(431)
        if name in _FRAMING:
            self._framing(fields, name, value)
        self._message.headers.append((name, value))

    def _framing(self, fields: _Fields, name: bytes, value: bytes) -> None:
        match name:
            case b"host":
                fields.hosts.append(value)
            case b"transfer-encoding":
                fields.codings.append(value)
            case b"content-length":
                self._message.length = int(value)
            case b"expect":
                self._message.expects_continue = value.lower() == b"100-continue"
            case b"upgrade":
                self._message.upgrade = value.lower()

    def on_headers_complete(self) -> None:
        # Asked now: later they speak of the last of several requests in one read.
        message, fields, parser = self._message, self._fields, self._parser
        assert fields is not None
        self._fields = None
        method: bytes = parser.get_method()
        message.method = _NAMES.get(method) or method.decode("ascii")
        message.version = parser.get_http_version()
        message.keep_alive = parser.should_keep_alive()
        if message.upgrade and not (parser.should_upgrade() and message.method != "CONNECT"):
            message.upgrade = b""
        self._check(message, fields)
        self.messages.append(message)

    def _check(self, message: Message, fields: _Fields) -> None:
        if message.version not in ("1.1", "1.0"):
            self._refuse(505)
        hosts = fields.hosts
        if len(hosts) != 1 and not (message.version == "1.0" and not hosts):
            self._refuse(400)
        if hosts and _HOST.fullmatch(hosts[0]) is None:
            self._refuse(400)
        if fields.codings:
            if message.version == "1.0" or message.length is not None:
                self._refuse(400)  # two lengths, or one that its reader may not know, are how requests are smuggled
            if [coding.lower() for coding in fields.codings] != [b"chunked"]:
                self._refuse(501)
            message.chunked = True

    def on_body(self, part: bytes) -> None:
        self._message.parts.append(part)

    def on_message_complete(self) -> None:
        self._message.complete = True


def head_of(message: Message) -> bytes:
    """The head of *message* as it may be read anew by somebody else."""
    lines = [b"%b %b HTTP/%b" % (message.method.encode(), message.target, message.version.encode())]
    lines += [b"%b: %b" % item for item in message.headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def split_target(target: bytes, host: bytes | None) -> tuple[bytes, bytes]:
    """Path and query of a request's target, as they were sent.

    Of the absolute form (RFC 9112 §3.2.2) it is the path, if its authority is the one that `Host` names;
    any other stays as it is, and is no path.
    """
    if not target.startswith(b"/") and target[:7].lower() in (b"http://", b"https:/"):
        authority, slash, path = target.partition(b"://")[2].partition(b"/")
        if host is not None and authority.lower() == host.lower():
            target = slash + path if slash else b"/"
    path, _, query = target.partition(b"?")
    return path, query
