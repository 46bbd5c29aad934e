"""Steady readers and writers over keep-alive connections, for tests that break things meanwhile.

A plain HTTP/1.1 client on trio streams: httpx costs more than the server, and both share the cores.
"""

import json
from collections import Counter
from dataclasses import dataclass, field

import trio


@dataclass
class Outcome:
    """What the clients saw. `failures` holds whatever was not the expected answer, as text."""

    answers: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    read_latencies: list[float] = field(default_factory=list)
    write_latencies: list[float] = field(default_factory=list)
    created: dict[str, str] = field(default_factory=dict)
    """Acknowledged writes: id → name."""


class Connection:
    """One keep-alive connection; reconnects when the server closed it between requests."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
        self._stream: trio.SocketStream | None = None

    async def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        if self._stream is None:
            self._stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        head = f"{method} {path} HTTP/1.1\r\n{self._head}"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        await self._stream.send_all(f"{head}\r\n".encode() + body)
        data = b""
        while b"\r\n\r\n" not in data:
            data += await self._more()
        raw_head, _, rest = data.partition(b"\r\n\r\n")
        lines = raw_head.split(b"\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(b":") for line in lines[1:])}
        length = int(headers.get(b"content-length", b"0"))
        while len(rest) < length:
            rest += await self._more()
        if headers.get(b"connection", b"").lower() == b"close":
            await self.aclose()
        return int(lines[0].split()[1]), rest

    async def _more(self) -> bytes:
        assert self._stream is not None
        chunk = await self._stream.receive_some(65536)
        if not chunk:
            raise ConnectionResetError("the server closed the connection in the middle of an answer")
        return bytes(chunk)

    async def aclose(self) -> None:
        if self._stream is not None:
            with trio.move_on_after(1) as scope:
                scope.shield = True
                await trio.aclose_forcefully(self._stream)
            self._stream = None


async def reader(
    outcome: Outcome, port: int, token: str, ids: list[str], start: int = 0, *, pause: float = 0.0
) -> None:
    """Read one id after another until cancelled, *pause* seconds between two."""
    connection = Connection(port, token)
    try:
        turn = start
        while True:
            began = trio.current_time()
            try:
                status, _ = await connection.request("GET", f"/users/{ids[turn % len(ids)]}")
            except (OSError, trio.BrokenResourceError) as error:
                outcome.failures.append(f"read: {error!r}")
                await connection.aclose()
                continue
            outcome.read_latencies.append(trio.current_time() - began)
            outcome.answers[status] += 1
            if status != 200:
                outcome.failures.append(f"read: {status}")
            turn += 1
            if pause:
                await trio.sleep(pause)
    finally:
        await connection.aclose()


async def writer(
    outcome: Outcome, port: int, token: str, name: str, count: int | None = None, *, pause: float = 0.0
) -> None:
    """Create users until cancelled, or *count* of them; each acknowledged one is noted."""
    connection = Connection(port, token)
    try:
        made = 0
        while count is None or made < count:
            who = f"{name} {made}"
            body = json.dumps({"name": who, "email": "w@example.com", "bio": ""}).encode()
            began = trio.current_time()
            try:
                status, answer = await connection.request("POST", "/users", body)
            except (OSError, trio.BrokenResourceError) as error:
                outcome.failures.append(f"write: {error!r}")
                return
            outcome.write_latencies.append(trio.current_time() - began)
            outcome.answers[status] += 1
            if status == 201:
                outcome.created[json.loads(answer)["id"]] = who
            else:
                outcome.failures.append(f"write: {status} {answer[:200]!r}")
            made += 1
            if pause:
                await trio.sleep(pause)
    finally:
        await connection.aclose()
