"""The head of a response, as bytes. Pure but for the clock it is given, which it asks for the date."""

import time
from collections.abc import Callable
from http import HTTPStatus
from wsgiref.handlers import format_date_time

from gateway.request import Headers

_LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus}
BODILESS = frozenset((204, 304))
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE = b"connection: close\r\n"
KEEP_ALIVE = b"connection: keep-alive\r\n"


class Heads:
    """Writes heads, with `date` (once a second anew) and `server`. *clock*: Unix seconds.

    *extra*: more fields of every response (`strict-transport-security`).
    """

    def __init__(self, clock: Callable[[], float] = time.time, extra: Headers | None = None) -> None:
        self._clock = clock
        self._extra = b"".join(b"%b: %b\r\n" % item for item in extra or ())
        self._second = 0
        self._ours = b""

    def of(self, status: int, headers: Headers, framing: bytes) -> bytes:
        """The whole head. *framing*: the lines that say where the message ends and whether the connection does."""
        now = int(self._clock())
        if now != self._second:
            self._second = now
            date = format_date_time(now).encode("ascii")
            self._ours = b"date: %b\r\nserver: weir\r\n%b" % (date, self._extra)
        parts = [_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        parts += (framing, self._ours, b"\r\n")
        return b"".join(parts)
