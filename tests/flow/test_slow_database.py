"""A database read that hangs holds up nobody who does not need it."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import supervisor
from actors.runtime import open_system
from actors.storage.messages import Transact
from backends.embedded.database import Database
from backends.embedded.engine import Engine
from backends.ports.entities import Entity, EntityStore, Key
from composition.listening import Listening
from composition.parts import Parts
from gateway.ids import new_id
from gateway.services.auth.writes import issue_token
from gateway.services.events import Cause
from gateway.sockets import open_sockets
from settings import load
from tests.flow.load import Connection

pytestmark = pytest.mark.process


class HangingReads:
    """An entity store whose reads of one key never return until they are let go; all else is the real one's."""

    def __init__(self, store: EntityStore, fault: "Fault") -> None:
        self._store = store
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def read(self, keys: Sequence[Key]) -> list[Entity | None]:
        if self._fault.key in {key.id for key in keys}:
            self._fault.hanging.set()
            await self._fault.let_go.wait()
        return await self._store.read(keys)


class Fault:
    def __init__(self) -> None:
        self.key = ""
        self.hanging = trio.Event()
        self.let_go = trio.Event()


class FaultyEngine(Engine):
    fault: Fault

    def entities(self) -> Any:
        return HangingReads(super().entities(), self.fault)


@asynccontextmanager
async def weir(folder: Path) -> AsyncIterator[tuple[int, str, Fault]]:
    """The whole tree in this process, on the real engine with a fault in it: (port, token, fault)."""
    environ = {"WEIR_DATA__DIR": str(folder), "WEIR_LIMITS": "[]"}
    with Database.open(folder / "weir.db") as database:
        engine = FaultyEngine(database)
        engine.fault = Fault()
        parts = Parts(load(supervisor.DEFAULT_CONFIG, environ), engine)
        (public,), (admin,) = open_sockets(["127.0.0.1:0"]), open_sockets(["127.0.0.1:0"])
        control = open_sockets([f"unix:{folder}/control.sock"])
        tree = supervisor.tree(parts, Listening([admin], control, [public]))
        with public, admin, control[0]:
            async with parts.engine.opened(), open_system(tree) as system:
                cause = Cause("test", new_id(), time.time(), (new_id(), new_id(), new_id()))
                write = issue_token("test", ["users:read", "users:write"], 3600.0, "secret-token", cause)
                await system.ref("storage").ask(Transact(write))
                yield public.getsockname()[1], "secret-token", engine.fault


async def create(connection: Connection) -> str:
    status, body = await connection.request("POST", "/users", b'{"name":"n","email":"n@example.com","bio":""}')
    assert status == 201
    return body.split(b'"id":"')[1].split(b'"')[0].decode()


async def test_cached_reads_and_reads_of_other_rows_go_on_while_one_read_hangs(tmp_path):
    async with weir(tmp_path) as (port, token, fault):
        connection = Connection(port, token)
        cached, hung, other = [await create(connection) for _ in range(3)]
        await connection.request("GET", f"/users/{cached}")
        fault.key = hung
        answers: list[int] = []

        async def read_hung() -> None:
            stuck = Connection(port, token)
            answers.append((await stuck.request("GET", f"/users/{hung}"))[0])
            await stuck.aclose()

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_hung)
                await fault.hanging.wait()
                for _ in range(200):
                    assert (await connection.request("GET", f"/users/{cached}"))[0] == 200
                assert (await connection.request("GET", f"/users/{other}"))[0] == 200
                assert answers == [], "the hung read is still hanging: nobody waited for it"
                fault.let_go.set()
        assert answers == [200]
        await connection.aclose()
