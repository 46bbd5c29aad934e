"""A real Redis for the test session, and servers of one's own for tests that break them."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engines import executable, free_port, log_tail


class RedisServer:
    """One redis-server on a free port of loopback, in a folder of its own; nothing is saved unless told so."""

    def __init__(self, folder: Path, *options: str, program: str | None = None) -> None:
        self.program = program or executable("Redis", "redis-server", "/usr/bin/redis-server")
        self.folder = folder
        self.port = free_port()
        self.options = options
        self.log = folder / "redis.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> "RedisServer":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
                 "--save", "", "--appendonly", "no", *self.options],
                stdout=log, stderr=log,
            )  # fmt: skip
        end = time.monotonic() + 10
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"redis-server did not start:\n{log_tail(self.log)}")
            time.sleep(0.02)
        return self

    def command(self, *words: str | bytes, password: str = "") -> bytes:
        """One command by a connection of its own; the raw reply (a few KiB at most)."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            if password:
                connection.sendall(_packed("AUTH", password))
                connection.recv(1024)
            connection.sendall(_packed(*words))
            return connection.recv(65536)

    def kill9(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def pause(self) -> None:
        """Hung: it accepts connections (the kernel does) and answers nothing."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.resume()
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill9()

    def _answers(self) -> bool:
        try:
            return self.command("PING")[:1] in (b"+", b"-")
        except OSError:
            return False


def _packed(*words: str | bytes) -> bytes:
    raw = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in raw)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The session's Redis. Share it by prefixes of your own; leave it running."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Makes servers (not started) that a test may kill, hang and start again; `own_redis("--maxmemory", "1mb")`."""
    made: list[RedisServer] = []

    def make(*options: str) -> RedisServer:
        folder = tmp_path / f"redis-{len(made)}"
        folder.mkdir()
        made.append(RedisServer(folder, *options))
        return made[-1]

    yield make
    for server in made:
        server.stop()
