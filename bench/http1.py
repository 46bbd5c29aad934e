"""The client's side of HTTP/1.1: one keep-alive connection with at most one request under way.

Only what a load generator needs: responses with a Content-Length (or 204 and 304, which have no body).
Anything else is an error, so that a server cannot look fast by answering nonsense.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple


class Malformed(Exception):
    """The bytes are no response that this client understands."""


class Answer(NamedTuple):
    status: int
    end: int
    """Where the response ends in the bytes given."""
    close: bool
    """The server ends the connection after it."""


def read_answer(data: bytes) -> Answer | None:
    """The response at the start of *data*, or None while it is incomplete. Raises `Malformed`."""
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        if len(data) > 65_536:
            raise Malformed("a head of more than 64 KiB")
        return None
    head = data[:head_end].lower() + b"\r\n"
    if not head.startswith(b"http/1.1 "):
        raise Malformed(f"no HTTP/1.1 status line: {head[:40]!r}")
    status = int(head[9:12])
    close = b"\r\nconnection: close\r\n" in head
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        if status not in (204, 304):
            raise Malformed(f"a {status} without Content-Length")
        return Answer(status, head_end + 4, close)
    end = head_end + 4 + int(head[at + 17 : head.index(b"\r\n", at + 2)])
    return Answer(status, end, close) if len(data) >= end else None


class Connection(asyncio.Protocol):
    """Sends a request when told to and reports the answer.

    `answered(connection, status, since)` follows each answer. `lost(connection, reason)` comes once, at the
    connection's end; *reason* is empty when no request was under way.
    """

    def __init__(
        self,
        answered: Callable[["Connection", int, float], None],
        lost: Callable[["Connection", str], None],
    ) -> None:
        self._answered, self._lost = answered, lost
        self._transport: asyncio.Transport | None = None
        self._data = b""
        self._since: float | None = None
        self._reason = "connection lost"

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def busy(self) -> bool:
        return self._since is not None

    def send(self, request: bytes, since: float) -> None:
        """Send *request*, which was due at *since* (the caller's clock)."""
        assert self._transport is not None
        self._since = since
        self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._data:
            data = self._data + data
        try:
            answer = read_answer(data)
        except (Malformed, ValueError) as error:
            return self._give_up(f"malformed: {error}")
        if answer is None:
            self._data = data
            return None
        since, self._since, self._data = self._since, None, b""
        if since is None or len(data) > answer.end:
            self._since = 0.0  # reported as a failure, though nothing was asked
            return self._give_up("malformed: bytes that nobody asked for")
        if answer.close:
            self.close()
        return self._answered(self, answer.status, since)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._lost(self, self._reason if self.busy else "")

    def _give_up(self, reason: str) -> None:
        self._reason = reason
        self.close()
