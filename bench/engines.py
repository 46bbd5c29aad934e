"""Real engines for one session: Redis, PostgreSQL, Kafka, on the load's core, in folders of their own.

They are the test suite's (`tests/engines`), started as one runs them for good: PostgreSQL brings every commit to the
disk before it confirms it, Kafka's heap and compiler are not kept small.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bench.process import Failed, Skipped
from tests.engines.kafka import Broker
from tests.engines.postgres import Server
from tests.engines.redis import RedisServer

ALL = ("redis", "postgres", "kafka")
COMMITS = ("fsync=on", "synchronous_commit=on", "full_page_writes=on")
POSTGRES = (*COMMITS, "shared_buffers=256MB", "max_connections=60", "max_wal_size=4GB")
JVM = ("-Xms512m", "-Xmx512m", "-XX:+UseSerialGC", "-Xshare:auto")
PPID, UTIME, AFTER_CSTIME = 1, 11, 15  # fields of /proc/ID/stat after the name, see proc(5)


class Engines:
    """Those of *names*, empty, from `start` to `stop`. Raises `Skipped` for one that is not installed."""

    def __init__(self, names: Sequence[str] = ALL) -> None:
        self._names = names
        self._stack = ExitStack()
        self._pids: list[int] = []
        self._redis: RedisServer | None = None
        self._postgres: Server | None = None
        self._broker: Broker | None = None
        self._database = ""

    @property
    def redis_url(self) -> str:
        assert self._redis is not None
        return self._redis.url

    @property
    def dsn(self) -> str:
        """Of a database that is the session's own."""
        assert self._postgres is not None
        return self._postgres.dsn(self._database)

    @property
    def bootstrap(self) -> str:
        assert self._broker is not None
        return self._broker.bootstrap

    def start(self, core: int | None) -> None:
        """On *core*, or wherever the kernel puts them."""
        with _outcomes(), on_core(core):
            try:
                for name in self._names:
                    {"redis": self._start_redis, "postgres": self._start_postgres, "kafka": self._start_kafka}[name]()
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        self._stack.close()
        self._pids = []

    def sql(self, statement: str) -> str:
        """As the administrator, who may do everything; what it returns, a row a line. Raises `Failed`."""
        assert self._postgres is not None
        try:
            return self._postgres.execute(statement, self._database)
        except AssertionError as error:
            raise Failed(f"PostgreSQL: {error}") from None

    def cpu_seconds(self) -> float:
        """Processor time that they have used so far, ended connections of PostgreSQL included; 0 without /proc."""
        ticks = 0
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = entry.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            if int(entry.parent.name) in self._pids:
                ticks += sum(map(int, fields[UTIME:AFTER_CSTIME]))
            elif int(fields[PPID]) in self._pids:
                ticks += sum(map(int, fields[UTIME : UTIME + 2]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def _start_redis(self) -> None:
        self._redis = RedisServer(self._folder("redis"))
        self._stack.callback(self._redis.stop)
        self._redis.start()
        assert self._redis.process is not None
        self._pids.append(self._redis.process.pid)

    def _start_postgres(self) -> None:
        server = self._postgres = Server(self._folder("postgres"), POSTGRES)
        self._stack.callback(server.kill)
        self._database = server.create_database()
        self._pids.append(server.pid)

    def _start_kafka(self) -> None:
        broker = self._broker = Broker(self._folder("kafka"), JVM)
        self._stack.callback(broker.kill)
        broker.start()
        self._pids.append(broker.pid)

    def _folder(self, name: str) -> Path:
        """Not the session's, which is ours alone: PostgreSQL runs as somebody else when we are root."""
        folder = Path(tempfile.mkdtemp(prefix=f"weir-bench-{name}-"))
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder


@contextmanager
def _outcomes() -> Iterator[None]:
    """What the test suite's classes end a test with, in the bench's words."""
    try:
        yield
    except pytest.skip.Exception as reason:
        raise Skipped(str(reason)) from None
    except (pytest.fail.Exception, AssertionError, RuntimeError) as error:
        raise Failed(str(error)) from None


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What is started within the block is kept on *core*, as we are until its end."""
    if core is None:
        yield
        return
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)
