"""A little Auth Service (RFC 7662) in a thread of the test: it can be stopped, slowed, and made to lie."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from tests.engines import free_port

Reply = Callable[[socket.socket, str], None]
"""Answers the question about a token on its connection, in whatever way. The connection is closed after an OSError."""


def http(body: bytes | str, status: str = "200 OK", *headers: str) -> bytes:
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def says(raw: bytes) -> Reply:
    """The same bytes to everybody."""
    return lambda connection, token: connection.sendall(raw)


def hangs(connection: socket.socket, token: str) -> None:
    """No answer for as long as the client waits for one."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    raise OSError("the client went")


class AuthServiceServer:
    """`tokens`: claims by token. `reply`: None answers as it should. `questions`: the tokens that were asked about, in
    order; `most` how many at once; `heads` what the requests' heads were."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/introspect"
        self.tokens: dict[str, dict[str, Any]] = {}
        self.reply: Reply | None = None
        self.delay = 0.0
        self.questions: list[str] = []
        self.heads: list[str] = []
        self.most = 0
        self._busy = 0
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def issue(self, token: str, **claims: Any) -> str:
        scope = "users:read users:write"
        self.tokens[token] = {"sub": "ann", "scope": scope, "exp": int(time.time()) + 3600, **claims}
        return token

    def start(self) -> "AuthServiceServer":
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        self._spawn(self._accept, self._listener)
        return self

    def stop(self) -> None:
        """As by kill -9: nobody listens, and what was open is reset."""
        if self._listener is None:
            return
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._listener = None
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._threads.clear()

    def _spawn(self, run: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(connection)
            self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while token := self._read(connection):
                with self._lock:
                    self.questions.append(token)
                    self._busy += 1
                    self.most = max(self.most, self._busy)
                try:
                    time.sleep(self.delay)
                    (self.reply or self._honest)(connection, token)
                finally:
                    with self._lock:
                        self._busy -= 1
        with self._lock:
            self._open.discard(connection)

    def _read(self, connection: socket.socket) -> str:
        """The token of the next question; "" at the end of the connection."""
        raw = b""
        while b"\r\n\r\n" not in raw:
            more = connection.recv(65536)
            if not more:
                return ""
            raw += more
        head, _, body = raw.partition(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        while len(body) < length:
            body += connection.recv(65536)
        self.heads.append(head.decode())
        return parse_qs(body.decode())["token"][0]

    def _honest(self, connection: socket.socket, token: str) -> None:
        claims = self.tokens.get(token)
        answer = {"active": False} if claims is None else {"active": True, "token_type": "Bearer", **claims}
        connection.sendall(http(json.dumps(answer)))
