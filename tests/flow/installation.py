"""Real engines of one installation, and instances of Weir on them, each a process of its own."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.engines import free_port
from tests.engines.kafka import Broker
from tests.engines.postgres import Server as Postgres
from tests.engines.redis import RedisServer
from tests.engines.tcp_proxy import TcpProxy
from tests.flow.server import GENEROUS, Server, eventually

BROKER_S = 20.0
"""Until consumers that lost their broker are at work again: sessions end, waits of up to 5 s, a rebalance."""


class Installation:
    """Redis, PostgreSQL and Kafka, and the proxies that lead to them. Instances share all of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("redis", "postgres", "kafka"):
            (folder / name).mkdir()
        if os.getuid() == 0:  # PostgreSQL runs as somebody else
            folder.chmod(0o755)
        self.redis = RedisServer(folder / "redis")
        self.redis_proxy = TcpProxy(self.redis.port)
        self.kafka_proxy = TcpProxy(0)
        self.kafka = Broker(folder / "kafka", self._through_proxy)
        self.kafka.start(wait=False)
        self.redis.start()
        self.postgres = Postgres(folder / "postgres")
        self.database = self.postgres.create_database()
        self.kafka.wait()
        self._names = 0

    def _through_proxy(self, port: int) -> int:
        self.kafka_proxy.target = port
        return self.kafka_proxy.port

    def settings(self, *, kafka: str = "", redis: str = "") -> str:
        return (
            f'[redis]\nurl = "{redis or self.redis.url}"\n'
            f'[postgres]\ndsn = "{self.postgres.dsn(self.database)}"\n'
            f'[kafka]\nbootstrap = "{kafka or self.kafka.bootstrap}"\n'
        )

    def instance(self, config: str = GENEROUS, *, kafka: str = "", redis: str = "") -> Server:
        """Not started yet."""
        self._names += 1
        folder = self.folder / f"weir-{self._names}"
        folder.mkdir()
        return Server(folder, config + self.settings(kafka=kafka, redis=redis))

    @contextmanager
    def instances(self, count: int, config: str = GENEROUS) -> Iterator[list[Server]]:
        """*count* of them, ready and all heard of by each other."""
        servers = [self.instance(config) for _ in range(count)]
        with running(*servers):
            yield servers

    def mend(self) -> None:
        """Every engine is up, every proxy lets through."""
        self.redis_proxy.heal()
        self.kafka_proxy.heal()
        if self.redis.process is None or self.redis.process.poll() is not None:
            self.redis.start()
        self.redis.resume()
        self.kafka.resume()
        self.kafka.start()
        if self.postgres.running:
            self.postgres.resume()
        else:
            self.postgres.start()

    def close(self) -> None:
        for proxy in (self.redis_proxy, self.kafka_proxy):
            proxy.close()
        self.kafka.resume()
        self.kafka.kill()
        self.redis.stop()
        if self.postgres.running:
            self.postgres.resume()
            self.postgres.kill()


@contextmanager
def installed() -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="weir-installation-"))
    try:
        installation = Installation(folder)
        try:
            yield installation
        finally:
            installation.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    """All at once, since most of a start is waiting. In the end each stops as told, having logged no error."""
    with ExitStack() as stack:
        for server in servers:
            server.start(wait=False)
            stack.callback(_ended, server)
        for server in servers:
            eventually(lambda server=server: is_whole(server), within=60)
        yield
        for server in servers:
            if server.process is not None and server.process.poll() is None:
                assert server.stop() == 0
            errors = [line for line in server.log_lines() if line["level"] in ("error", "critical")]
            assert errors == [], errors
            assert "Traceback" not in server.log.read_text()


def _ended(server: Server) -> None:
    if server.process is not None and server.process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            server.kill9()


def is_whole(server: Server) -> bool:
    """Ready, and nothing degraded; else an AssertionError with the reasons."""
    if server.process is None or server.process.poll() is not None:
        raise RuntimeError(f"the server ended:\n{server.log.read_text()[-4000:]}")
    answer = httpx.get(f"{server.admin_url}/readyz")
    assert answer.json() == {"status": "ready", "reasons": []}, f"{server.folder.name}: {answer.text}"
    return True


def nowhere() -> str:
    """Where nobody listens."""
    return f"127.0.0.1:{free_port()}"
