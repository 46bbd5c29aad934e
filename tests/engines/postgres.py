"""A real PostgreSQL for the test session: one server, and one that a test may kill, stop and restart.

Databases belong to `weir`, which is no superuser: what Weir needs, an ordinary owner has.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import asyncpg
import pytest

from tests.engines import executable, free_port, log_tail

BIN = "/usr/lib/postgresql"
START_S = 60.0
ADMIN, ADMIN_PASSWORD = "postgres", "admin-secret"
USER, PASSWORD = "weir", "weir-secret"

# The machine survives in every test, so nothing has to reach the disk; what a commit promises stays the same.
OPTIONS = ("fsync=off", "full_page_writes=off", "shared_buffers=64MB", "max_connections=60", "log_checkpoints=off")


class Server:
    """One server. Its port and its data stay over `kill`, `stop` and `start`."""

    def __init__(self, folder: Path, options: Sequence[str] = OPTIONS) -> None:
        self.folder = folder
        self._options = options
        self.port = free_port()
        self._data = folder / "data"
        self._log = folder / "server.log"
        self._postgres = program("postgres")
        self._psql = program("psql")
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count(1)
        self._initialise()

    def dsn(self, database: str, *, user: str = USER, password: str = PASSWORD, port: int | None = None) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{port or self.port}/{database}"

    def local_dsn(self, database: str, user: str = USER) -> str:
        """By the server's own socket, without a password: a fifth of the time that a connection takes by TCP."""
        return f"postgresql://{user}@/{database}?host={self.folder}&port={self.port}"

    def admin_dsn(self, database: str) -> str:
        return self.local_dsn(database, ADMIN)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *, wait: bool = True) -> None:
        options = [part for option in (*self._options, f"port={self.port}", f"unix_socket_directories={self.folder}")
                   for part in ("-c", option)]  # fmt: skip
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_as_postgres(), self._postgres, "-D", str(self._data), *options], stdout=log, stderr=log
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.running:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                self.execute("SELECT 1")
            except (OSError, AssertionError):
                time.sleep(0.05)
            else:
                return
        pytest.fail(f"PostgreSQL did not start:\n{log_tail(self._log)}", pytrace=False)

    def stop(self) -> None:
        """As an administrator does it: open transactions are rolled back, connections are told."""
        self._signal([self.pid], signal.SIGINT)
        self._wait_for_end()

    def kill(self) -> None:
        """kill -9, of the server and of each connection's process."""
        self._signal(self._pids(), signal.SIGKILL)
        self._wait_for_end()

    def suspend(self) -> None:
        """SIGSTOP: connections stay, new ones are taken by the kernel, nothing is answered."""
        self._signal(self._pids(), signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(self._pids(), signal.SIGCONT)

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Run *sql* as the administrator; what it returns, a row a line."""
        done = subprocess.run(
            [self._psql, "-XAtq", "-v", "ON_ERROR_STOP=1", "-d",
             self.admin_dsn(database), "-c", sql],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def create_database(self) -> str:
        """An empty database of its own; returns its name."""
        name = f"weir{next(self._names)}"
        self.execute(f"CREATE DATABASE {name} OWNER {USER} STRATEGY file_copy")
        return name

    def _initialise(self) -> None:
        password = self.folder / "password"
        password.write_text(ADMIN_PASSWORD)
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
            shutil.chown(password, "postgres", "postgres")
        done = subprocess.run(
            [*_as_postgres(), program("initdb"), "-D", str(self._data), "-U", ADMIN, "--pwfile", str(password),
             "--auth-host=scram-sha-256", "--auth-local=trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            pytest.fail(f"initdb failed:\n{done.stdout}{done.stderr}", pytrace=False)
        self.start()
        self.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")

    def _pids(self) -> list[int]:
        """The server's process first, so that it starts no more of the others."""
        pid = self.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        return [pid, *map(int, children.read_text().split())] if children.exists() else [pid]

    def _signal(self, pids: list[int], number: int) -> None:
        for pid in pids if self.running else ():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def _wait_for_end(self) -> None:
        if self._process is not None:
            self._process.wait(START_S)
            self._process = None


async def emptied(admin_dsn: str) -> None:
    """asyncio: delete every row of Weir's tables, also of those whose triggers refuse it. A database a test would take
    longer to make than many a test to run."""
    connection = await asyncpg.connect(admin_dsn)
    try:
        await connection.execute("SET session_replication_role = replica")
        tables = await connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'weir' "
            "AND tablename NOT IN ('schema_version', 'search_state')"
        )
        await connection.execute(";".join(f"DELETE FROM weir.{row[0]}" for row in tables))
    finally:
        await connection.close()


def program(name: str) -> str:
    versions = sorted(Path(BIN).glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return executable("PostgreSQL", *(str(path / name) for path in versions), name)


def _as_postgres() -> list[str]:
    """PostgreSQL refuses root. The server ends with the tests, however these end."""
    who = ["--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    return [executable("PostgreSQL", "setpriv"), "--pdeathsig=KILL", *who]


def _served() -> Iterator[Server]:
    program("postgres")
    # Not pytest's folder: that one belongs to us alone, and the server runs as somebody else.
    folder = Path(tempfile.mkdtemp(prefix="weir-postgres-"))
    server = None
    try:
        server = Server(folder)
        yield server
    finally:
        if server is not None and server.running:
            server.resume()
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The session's server: not to be stopped."""
    yield from _served()


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Server]:
    """A server that a test may kill, stop and restart; running when it begins is the test's own business."""
    yield from _served()
