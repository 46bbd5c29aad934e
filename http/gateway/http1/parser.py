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

# What is fed at a time, at most.
_READ = 64 * 1024
# What one chunk may take beyond its bytes without counting as excess, and then as much again as two times its bytes.
_CHUNK_FRAMING = 16

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
        self._excess = 0  # bytes of a chunked body that are framing, beyond what framing needs
        self._head: list[bytes] = []  # what of an unfinished head was fed before
        self._data = b""
        self._is_over = False
        self._resuming = False
        self._parser = httptools.HttpRequestParser(self)

    @property
    def in_head(self) -> bool:
        """Whether the beginning of a request is there and the end of its head is not."""
        return self._fields is not None

    def feed(self, data: bytes) -> None:
        """Take more of the connection. Raises nothing: see `error`."""
        if self.error is not None or self._is_over:
            return
        if self.rest is not None:
            self.rest += data
            return
        rest: bytes | None = data
        while rest is not None:
            rest = self._feed(rest)
        last = self.messages[-1] if self.messages else self._message
        if last.complete and not last.keep_alive:
            self._is_over = True  # what follows a last request is nobody's
            self.error = None
        else:
            self._bound(data)

    def _feed(self, data: bytes) -> bytes | None:
        """What is still to be fed: the bytes behind an offer to upgrade."""
        self._data = data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._after_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._fail(data, error)
        return None

    def _bound(self, data: bytes) -> None:
        """A field, chunk extension or trailer that never ends is not told to us before it does: count what is fed."""
        if self._fields is not None:
            self._head.append(data)
            self._unfinished += len(data)
            # (The first read may hold other requests, too.)
            if self._unfinished > self._limits.size + _READ:
                self.error = self.error or Unreadable(431)
        elif self._message.chunked and not self._message.complete:
            self._excess = max(0, self._excess + len(data))
            if self._excess > self._limits.size + _READ:
                self.error = self.error or Unreadable(400)

    def _after_upgrade(self, rest: bytes) -> bytes | None:
        message = self._message
        if message.upgrade == b"websocket":
            self.rest = rest
            return None
        if message.method == "CONNECT":
            self._is_over = True  # is it a body, or already the tunnel's? Nobody's
            return None
        # An offer that is not taken (RFC 9110 §7.8): HTTP/1.1 goes on.
        self._parser = httptools.HttpRequestParser(self)
        if message.has_body:  # llhttp ends the message before it, and would read it as the next request
            self._resume(message)
        return rest or None

    def _resume(self, message: Message) -> None:
        """Have the body of *message* read by a parser that has not seen its head."""
        length = b"transfer-encoding: chunked" if message.chunked else b"content-length: %d" % (message.length or 0)
        connection = b"keep-alive" if message.keep_alive else b"close"
        message.complete = False
        self._resuming = True
        self._parser.feed_data(
            b"POST / HTTP/%b\r\n%b\r\nconnection: %b\r\n\r\n" % (message.version.encode(), length, connection)
        )
        self._resuming = False

    def _fail(self, data: bytes, error: Exception) -> None:
        if self.error is not None:  # ours, from a callback
            return
        last = self._message
        if last.complete and not last.keep_alive and self._fields is None:
            return  # what follows a last request is nobody's
        is_first = not self.messages
        if isinstance(error, httptools.HttpParserInvalidMethodError) and is_first and _METHOD_LINE.match(data):
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
        if self._resuming:
            return
        self._message = Message()
        self._fields = _Fields()
        self._unfinished = 0
        self._head.clear()

    def on_url(self, url: bytes) -> None:
        if self._resuming:
            return
        message = self._message
        message.target += url
        if len(message.target) > self._limits.size:
            self._refuse(431)

    def on_header(self, name: bytes, value: bytes) -> None:
        fields = self._fields
        if fields is None:
            return  # a trailer, or a head that we wrote
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
        if self._resuming:
            return
        # Asked now: later they speak of the last of several requests in one read.
        message, fields, parser = self._message, self._fields, self._parser
        assert fields is not None
        self._fields = None
        method: bytes = parser.get_method()
        message.method = _NAMES.get(method) or method.decode("ascii")
        message.version = parser.get_http_version()
        message.keep_alive = parser.should_keep_alive()
        self._check(message, fields)
        if message.upgrade and not (parser.should_upgrade() and _may_upgrade(message)):
            message.upgrade = b""
        if message.method == "CONNECT":
            message.keep_alive = False
        self._excess = 0
        self.messages.append(message)

    def _check(self, message: Message, fields: _Fields) -> None:
        if message.version not in ("1.1", "1.0") or self._is_other_protocol(message):
            self._refuse(505)
        if message.version == "1.0":
            message.expects_continue = False  # it must be ignored there (RFC 9110 §10.1.1)
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

    def _is_other_protocol(self, message: Message) -> bool:
        """llhttp takes RTSP/1.0 and ICE/1.0 for HTTP, and does not say so."""
        seen = b"".join((*self._head, self._data)) if self._head else self._data
        if b" RTSP/" not in seen and b" ICE/" not in seen:
            return False
        line = re.escape(message.method.encode()) + rb" +" + re.escape(message.target) + rb" +(RTSP|ICE)/"
        return re.search(line, seen) is not None

    def on_body(self, part: bytes) -> None:
        self._excess -= _CHUNK_FRAMING + 3 * len(part)
        self._message.parts.append(part)

    def on_message_complete(self) -> None:
        self._message.complete = True


def _may_upgrade(message: Message) -> bool:
    """Only what can be a WebSocket's handshake (RFC 6455 §4.1)."""
    return message.method == "GET" and message.version == "1.1" and not message.has_body


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
