"""The answers on one connection, read by llhttp. No IO: bytes in, a head and parts of a body out.

llhttp decides the framing and refuses what is ambiguous. What it leaves to its user is here: the limit of the head,
interim answers, HEAD, the end of a body that the connection's end delimits, trailers, versions and statuses.
"""

import httptools

from gateway.request import Headers

MAX_HEAD = 64 * 1024
_TOO_LARGE = f"its head is larger than {MAX_HEAD} bytes"


class BadAnswer(Exception):
    """What the upstream sent is no answer, or not all of one."""


class Reader:
    """Begin it for each request. `head` is whether `status` and `headers` (names lower case) are there, `complete`
    whether all of the answer was read. `heard`: anything at all came."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._head_only = False
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.length: int | None = None
        self.head = self.complete = self.heard = False
        self.keep_alive = False
        self.rest = b""
        """What came behind a 101: it is not HTTP."""
        self.held = 0
        """Bytes of the body that are read and not yet taken."""
        self._parts: list[bytes] = []
        self._interim = self._framed = self._extra = False
        self._size = self._named = 0

    def begin(self, method: str) -> None:
        if self._head_only:  # llhttp still waits for the body that the answer to HEAD announced
            self._parser = httptools.HttpResponseParser(self)
        self._head_only = method == "HEAD"
        self._reset()

    def feed(self, data: bytes) -> None:
        """Raises BadAnswer."""
        self.heard = True
        if not self.head:
            self._size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.rest = data[upgrade.args[0] :]
        except httptools.HttpParserCallbackError as error:
            raise BadAnswer(str(error.__context__)) from None
        except httptools.HttpParserError as error:
            if not self.complete:
                raise BadAnswer(str(error)) from None
            self._extra = True  # nonsense behind a whole answer: only the connection is of no use any more
        if not self.head and self._size > MAX_HEAD:
            raise BadAnswer(_TOO_LARGE)

    def feed_end(self) -> None:
        """The upstream closed. Raises BadAnswer when that cuts the answer short."""
        self.keep_alive = False
        if not self.head:
            raise BadAnswer("it closed the connection before it answered")
        if not self.complete and self._framed:
            raise BadAnswer("it closed the connection within its answer")
        self.complete = True

    def take(self) -> list[bytes]:
        """The parts of the body read since the last call."""
        parts, self._parts, self.held = self._parts, [], 0
        return parts

    @property
    def reusable(self) -> bool:
        """Whether the connection can take another request."""
        return self.complete and self.keep_alive and not self._extra and self.status != 101

    # llhttp's callbacks.

    def on_message_begin(self) -> None:
        if self.complete:
            self._extra = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head:
            return  # a trailer
        self._named += len(name) + len(value)
        if self._named > MAX_HEAD:
            raise BadAnswer(_TOO_LARGE)
        self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.head:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self.headers = []
            self._interim = True
            return
        if self._parser.get_http_version() not in ("1.1", "1.0") or not (200 <= status <= 599 or status == 101):
            raise BadAnswer(f"it answered {status} in HTTP/{self._parser.get_http_version()}")
        self.status = status
        self.head = True
        self.keep_alive = self._parser.should_keep_alive()
        self._frame()
        if self._head_only:
            self.complete = True

    def _frame(self) -> None:
        for name, value in self.headers:
            if name == b"content-length":
                self.length = int(value)
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked":
                    raise BadAnswer("it answered in a transfer coding that nobody asked for")
                self._framed = True
        self._framed = self._framed or self.length is not None

    def on_body(self, body: bytes) -> None:
        if self.complete:  # of an answer to HEAD
            self._extra = True
            return
        self._parts.append(body)
        self.held += len(body)

    def on_chunk_header(self) -> None:
        if self.complete:
            self._extra = True

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        else:
            self.complete = True
