"""Weir and FastAPI on Redis, PostgreSQL and Kafka, which each session starts for itself on the load's core."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.engines import Engines
from bench.load import ORIGIN
from bench.peers.fastapi_peer import uvicorn
from bench.peers.http_peer import SCOPES, SUBJECT, UsersPeer
from bench.peers.weir_peer import Weir, WeirServer
from bench.process import Process, Skipped, free_port
from bench.registry import Session

TABLES = """
[redis]
url = "{redis}"
[postgres]
dsn = "{dsn}"
[kafka]
bootstrap = "{kafka}"
"""
FRESH = "{:08x}-0000-4000-8000-{:012x}"


class OnEngines(UsersPeer):
    """A `/users` whose stores are the session's engines, and a stock of users that nobody has read yet."""

    kind = "users-on-engines"
    needs = ("redis-server", "postgres", "kafka")

    def __init__(self) -> None:
        super().__init__()
        self.engines = Engines()

    def start(self, session: Session) -> None:
        self.engines.start(session.layout.load_core)
        super().start(session)

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            self.engines.stop()

    def fresh(self, count: int) -> Path:
        """Store *count* users behind the server's back; a file with their paths."""
        assert self.session is not None
        first = next(iter(self.paths.read_text().split())).removeprefix("/users/")
        self.engines.sql(self.copies(first, count))
        self.engines.sql("CHECKPOINT")
        file = self.session.folder / "fresh"
        file.write_text("\n".join(f"/users/{FRESH.format(number, number)}" for number in range(count)))
        return file

    def copies(self, id: str, count: int) -> str:
        """SQL that copies the user *id* to the ids of `FRESH`."""
        raise NotImplementedError


class FastApiOnEngines(OnEngines):
    """One uvicorn worker on httptools and uvloop. No consumers; what its outbox holds is its backlog."""

    def launch(self, session: Session) -> None:
        engines, port = self.engines, free_port()
        env = {
            "PEER_REDIS": engines.redis_url,
            "PEER_POSTGRES": engines.dsn,
            "PEER_KAFKA": engines.bootstrap,
            "PEER_ORIGINS": ORIGIN,
            "PEER_QUOTA": "30000000",
            "PEER_BURST": "1000000",
        }
        self.url = f"http://127.0.0.1:{port}"
        self.process = uvicorn("bench.apps.fastapi_engines:app", port, session, env)
        self.process.wait_ready(f"{self.url}/openapi.json")
        self.token = secrets.token_urlsafe(32)
        digest, scopes = hashlib.sha256(self.token.encode()).hexdigest(), ",".join(SCOPES)
        row = f"'{digest}', '{SUBJECT}', '{{{scopes}}}', {time.time() + 86_400}"
        engines.sql(f"INSERT INTO token VALUES ({row})")

    def backlog(self) -> int:
        return int(self.engines.sql("SELECT count(*) FROM outbox"))

    def count_audits(self) -> tuple[int, bool]:
        return asyncio.run(records(self.engines.bootstrap, "audit")), True

    def copies(self, id: str, count: int) -> str:
        return (
            "INSERT INTO app_user SELECT lpad(to_hex(n), 8, '0') || '-0000-4000-8000-' || lpad(to_hex(n), 12, '0'), "
            f"name, email, bio, version, created_at, updated_at FROM app_user, generate_series(0, {count - 1}) AS n "
            f"WHERE id = '{id}'; ANALYZE app_user"
        )


class WeirOnEngines(OnEngines, Weir):
    """The gateway on the server's core; its consumers are a process of their own, on the load's.

    A build without roles, and one with *server* settings of its own, does everything in one, on the server's core.
    """

    def __init__(self, server: Mapping[str, object] | None = None) -> None:
        OnEngines.__init__(self)
        Weir.__init__(self, server)
        self.engines = Engines()
        self._split = not server
        self._consumers: tuple[WeirServer, Process] | None = None

    def launch(self, session: Session) -> None:
        self._tables = tables(self.engines)
        if self._split:
            try:
                self._launch_apart(session)
            except Skipped:  # this build knows no roles
                self._settings = {}
            else:
                return
        Weir.launch(self, session)

    def _launch_apart(self, session: Session) -> None:
        self._settings = {"roles": ["gateway"]}
        Weir.launch(self, session)
        folder = session.folder / "consumers"
        folder.mkdir()
        layout = replace(session.layout, server_core=session.layout.load_core)
        beside, server = replace(session, folder=folder, layout=layout), WeirServer()
        process = server.launch(beside, free_port(), 'roles = ["consumers"]', self._tables)
        self._consumers = server, process
        server.wait_ready()

    def stop(self) -> None:
        try:
            if self._consumers is not None:
                self._consumers[1].stop()
        finally:
            OnEngines.stop(self)

    def backlog(self) -> int:
        if self._consumers is None:
            return Weir.backlog(self)
        return self._server.unpublished() + self._consumers[0].backlog()

    def consumers_seconds(self) -> float | None:
        """Processor time of the consumers' own process, where there is one."""
        return None if self._consumers is None else self._consumers[1].cpu_seconds()

    def copies(self, id: str, count: int) -> str:
        return (
            "INSERT INTO weir.entity SELECT kind, convert_to(lpad(to_hex(n), 8, '0') || '-0000-4000-8000-' || "
            "lpad(to_hex(n), 12, '0'), 'UTF8'), version, created_at, updated_at, expires_at, convert_to(replace("
            f"convert_from(body, 'UTF8'), '{id}', lpad(to_hex(n), 8, '0') || '-0000-4000-8000-' || "
            f"lpad(to_hex(n), 12, '0')), 'UTF8') FROM weir.entity, generate_series(0, {count - 1}) AS n "
            f"WHERE id = convert_to('{id}', 'UTF8'); ANALYZE weir.entity"
        )


class WeirPair:
    """Two whole instances on the same engines, both on the server's core."""

    kind = "instances"
    needs = OnEngines.needs

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.client = "", ""
        self.token = ""
        self._engines = Engines()
        self._processes: list[Process] = []

    def start(self, session: Session) -> None:
        self._engines.start(session.layout.load_core)
        servers = [self._launch(session, name) for name in ("first", "second")]
        for server in servers:
            server.wait_ready()
        self.client = servers[0].add_client("bench", *SCOPES)
        self.token = servers[0].issue(SUBJECT, *SCOPES)

    def finish(self) -> list[str]:
        return []

    def stop(self) -> None:
        try:
            for process in self._processes:
                process.stop()
        finally:
            self._engines.stop()

    def _launch(self, session: Session, name: str) -> WeirServer:
        folder, port, server = session.folder / name, free_port(), WeirServer()
        folder.mkdir()
        process = server.launch(replace(session, folder=folder), port, "", tables(self._engines))
        self._processes.append(process)
        self.urls.append(f"http://127.0.0.1:{port}")
        return server


def tables(engines: Engines) -> str:
    return TABLES.format(redis=engines.redis_url, dsn=engines.dsn, kafka=engines.bootstrap)


async def records(bootstrap: str, topic: str) -> int:
    """How many records *topic* holds."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        found = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        starts, ends = await consumer.beginning_offsets(found), await consumer.end_offsets(found)
        return sum(ends[partition] - starts[partition] for partition in found)
    finally:
        await consumer.stop()
