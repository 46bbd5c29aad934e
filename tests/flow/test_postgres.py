"""The whole tree on a real PostgreSQL, with the embedded log as the bus: the database restarted under load."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

import supervisor
from actors.runtime import System, open_system
from actors.storage.messages import Transact
from backends.embedded.database import Database
from backends.embedded.event_log import EventLog
from backends.ports.cloudevents import from_record
from backends.ports.events import ENTITY_CHANGED
from backends.postgres.engine import Engine
from backends.postgres.pool import Pool
from composition.engines import opened_engines
from composition.listening import Listening
from composition.parts import Parts
from gateway.ids import new_id
from gateway.services.auth.writes import issue_token
from gateway.services.events import Cause
from gateway.sockets import open_sockets
from settings import load
from tests.engines.postgres import Server

pytestmark = [pytest.mark.process, pytest.mark.engines]

SCOPES = ["users:read", "users:write", "search:read", "audit:read"]
RECOVERY_S = 5.0


class Weir:
    def __init__(self, system: System, log: EventLog, url: str, admin: str, pool: Pool) -> None:
        self.system, self.log, self.url, self.admin, self.pool = system, log, url, admin, pool

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": "Bearer secret-token"}, timeout=15, trust_env=False
        )

    async def events(self) -> list[Any]:
        starts = await self.log.start_offsets(ENTITY_CHANGED)
        return [from_record(record) for record in await self.log.fetch(starts, 100_000)]


@asynccontextmanager
async def weir(folder: Path, dsn: str) -> AsyncIterator[Weir]:
    environ = {"WEIR_DATA__DIR": str(folder), "WEIR_LIMITS": "[]", "WEIR_CACHE__TTL__TOKEN_VALIDATION": "10m"}
    with Database.open(folder / "weir.db", fsync=lambda _: None) as database:
        pool, log = Pool(dsn, budget=1.0), EventLog(database)
        parts = Parts(load(supervisor.DEFAULT_CONFIG, environ), Engine(pool, log, "test"))
        (public,), (admin,) = open_sockets(["127.0.0.1:0"]), open_sockets(["127.0.0.1:0"])
        control = open_sockets([f"unix:{folder}/control.sock"])
        tree = supervisor.tree(parts, Listening([admin], control, [public]))
        with public, admin, control[0]:
            async with opened_engines(parts.engine), open_system(tree) as system:
                parts.phase.started = True
                cause = Cause("test", new_id(), time.time(), (new_id(), new_id(), new_id()))
                if pool.health().reached:
                    await system.ref("storage").ask(
                        Transact(issue_token("test", SCOPES, 3600.0, "secret-token", cause))
                    )
                urls = (f"http://127.0.0.1:{sock.getsockname()[1]}" for sock in (public, admin))
                yield Weir(system, log, *urls, pool)


@pytest.fixture
def database(own_postgres: Server) -> str:
    if not own_postgres.running:
        own_postgres.start()
    return own_postgres.create_database()


async def create(client: httpx.AsyncClient, name: str) -> str:
    answer = await client.post("/users", json={"name": name, "email": "n@example.com", "bio": ""})
    assert answer.status_code == 201, answer.text
    id: str = answer.json()["id"]
    return id


async def eventually(probe: Any, within: float = 10.0) -> Any:
    with trio.fail_after(within):
        while not (value := await probe()):  # noqa: ASYNC110 - a real server, not an event of ours
            await trio.sleep(0.05)
    return value


async def test_a_write_is_read_found_audited_and_told(own_postgres: Server, database: str, tmp_path: Path) -> None:
    async with weir(tmp_path, own_postgres.local_dsn(database)) as here, here.client() as client:
        id = await create(client, "Ada Lovelace")
        assert (await client.get(f"/users/{id}")).json()["name"] == "Ada Lovelace"
        assert (await client.patch(f"/users/{id}", json={"name": "Ada King"})).status_code == 200
        assert [user["id"] for user in (await client.get("/users")).json()["items"]] == [id]

        async def found() -> bool:
            return [hit["id"] for hit in (await client.get("/search?q=king")).json()["items"]] == [id]

        async def audited() -> bool:
            items = (await client.get(f"/audit?entity=user/{id}")).json()["items"]
            return {"user.create", "user.update", "user.read"} <= {item["action"] for item in items}

        await eventually(found)
        await eventually(audited)
        assert [event.type for event in await here.events()] == ["user.created", "user.updated"]
        assert (await client.delete(f"/users/{id}")).status_code == 204
        assert (await client.get(f"/users/{id}")).status_code == 404


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_restarted_under_load_cached_reads_go_on_others_are_told_to_come_back_and_nothing_is_lost(
    own_postgres: Server, database: str, tmp_path: Path, how: str
) -> None:
    async with weir(tmp_path, own_postgres.dsn(database)) as here, here.client() as client:
        cached = await create(client, "cached")
        assert (await client.get(f"/users/{cached}")).status_code == 200
        acknowledged: list[str] = []
        statuses: dict[str, set[int]] = {"cached": set(), "write": set(), "uncached": set()}
        away: list[httpx.Response] = []

        async def write_forever() -> None:
            async with here.client() as own:
                while True:
                    answer = await own.post("/users", json={"name": "n", "email": "n@example.com", "bio": ""})
                    statuses["write"].add(answer.status_code)
                    if answer.status_code == 201:
                        acknowledged.append(answer.json()["id"])
                    elif answer.status_code == 503:
                        away.append(answer)
                        await trio.sleep(0.05)

        async def read_forever(path: str, kind: str) -> None:
            async with here.client() as own:
                while True:
                    answer = await own.get(path.format(new_id()))
                    statuses[kind].add(answer.status_code)
                    if answer.status_code == 503:
                        away.append(answer)
                    await trio.sleep(0.02)

        async def ready() -> dict[str, Any]:
            async with httpx.AsyncClient(trust_env=False) as own:
                answer = await own.get(f"{here.admin}/readyz")
                return {"status_code": answer.status_code, **answer.json()}

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_forever)
            nursery.start_soon(read_forever, f"/users/{cached}", "cached")
            nursery.start_soon(read_forever, "/users/{}", "uncached")
            await trio.sleep(0.5)
            await trio.to_thread.run_sync(getattr(own_postgres, how))
            await trio.sleep(1.0)
            degraded = await ready()
            assert degraded["status_code"] == 200
            assert any("postgres.dsn" in reason for reason in degraded["reasons"]), degraded
            await trio.to_thread.run_sync(own_postgres.start)
            count = len(acknowledged)

            async def writes_again() -> bool:
                return len(acknowledged) > count

            await eventually(writes_again, RECOVERY_S)
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel()

        assert statuses["cached"] == {200}
        assert statuses["uncached"] <= {404, 503}
        assert statuses["write"] <= {201, 503}
        assert away, "nothing was refused while the database was away"
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in away)
        for id in acknowledged:
            assert (await client.get(f"/users/{id}")).status_code == 200

        async def told() -> bool:
            return set(acknowledged) <= {event.key for event in await here.events()}

        await eventually(told)


async def test_a_database_that_is_away_at_the_start_is_said_by_readyz_until_it_comes(
    own_postgres: Server, database: str, tmp_path: Path
) -> None:
    own_postgres.stop()
    async with weir(tmp_path, own_postgres.dsn(database)) as here, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{here.admin}/readyz")
        assert answer.status_code == 503
        assert any(f"postgres.dsn (weir@127.0.0.1:{own_postgres.port}/{database})" in reason
                   for reason in answer.json()["reasons"])  # fmt: skip
        assert "weir-secret" not in answer.text
        refused = await client.get(f"{here.url}/users", headers={"Authorization": "Bearer secret-token"})
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        await trio.to_thread.run_sync(own_postgres.start)

        async def ready() -> bool:
            return (await client.get(f"{here.admin}/readyz")).status_code == 200

        await eventually(ready, RECOVERY_S)
