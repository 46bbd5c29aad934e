"""kill -9 at any moment: no acknowledged write is missing, its events are published, effects happened once."""

import random
from collections import Counter

import pytest
import trio

from tests.flow.load import Outcome, writer
from tests.flow.server import Server, eventually

pytestmark = pytest.mark.process

WRITES = 1000
CONNECTIONS = 16


async def write_and_kill(server: Server, token: str, name: str, after: float) -> Outcome:
    outcome = Outcome()
    async with trio.open_nursery() as nursery:
        for n in range(CONNECTIONS):
            nursery.start_soon(writer, outcome, server.port, token, f"{name} {n}", WRITES // CONNECTIONS)
        await trio.sleep(after)
        server.kill9()
    return outcome


def counted(client, path: str, query: dict[str, str], member: str) -> Counter[str]:
    """How often each value of *member* is in the list at *path*, all its pages together."""
    counts: Counter[str] = Counter()
    cursor = None
    while True:
        page = client.get(path, params=query | {"limit": 200} | ({"cursor": cursor} if cursor else {})).json()
        counts.update(item[member] for item in page["items"])
        cursor = page["next_cursor"]
        if cursor is None:
            return counts


def check(server: Server, token: str, created: dict[str, str]) -> None:
    with server.client(token) as client:
        for id, name in created.items():
            assert client.get(f"/users/{id}").json()["name"] == name

        def each_once(path: str, query: dict[str, str], member: str, expected: set[str]) -> bool:
            counts = counted(client, path, query, member)
            assert set(counts.values()) <= {1}, counts.most_common(3)
            return expected <= counts.keys()

        audited = {f"user/{id}" for id in created}
        eventually(lambda: each_once("/audit", {"action": "user.create"}, "entity", audited), within=30, every=0.3)
        for word in {name.split()[0] for name in created.values()}:
            ids = {id for id, name in created.items() if name.split()[0] == word}
            eventually(lambda w=word, i=ids: each_once("/search", {"q": w}, "id", i), within=30, every=0.3)


async def rounds(tmp_path, count: int) -> None:
    server = Server(tmp_path)
    server.start()
    try:
        token = server.token()
        everything: dict[str, str] = {}
        for round in range(count):
            outcome = await write_and_kill(server, token, f"round{round}", random.uniform(0.05, 0.8))
            everything |= outcome.created
            server.start()
        assert len(everything) > 50, "the kills came before anything was written"
        check(server, token, everything)
    finally:
        server.stop()


async def test_nothing_acknowledged_is_lost_over_ten_kills(tmp_path):
    await rounds(tmp_path, 10)


@pytest.mark.long
async def test_nothing_acknowledged_is_lost_over_fifty_kills(tmp_path):
    await rounds(tmp_path, 50)
