"""kill -9 at any moment: no acknowledged write is missing, its events are published, effects happened once."""

import random

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


def audited(client, since: float) -> dict[str, int]:
    """How often each user's creation is in the audit log."""
    counts: dict[str, int] = {}
    cursor = None
    while True:
        query = {"action": "user.create", "limit": 200} | ({"cursor": cursor} if cursor else {})
        page = client.get("/audit", params=query).json()
        for item in page["items"]:
            counts[item["entity"]] = counts.get(item["entity"], 0) + 1
        cursor = page["next_cursor"]
        if cursor is None:
            return counts


def check(server: Server, token: str, created: dict[str, str]) -> None:
    with server.client(token) as client:
        for id, name in created.items():
            assert client.get(f"/users/{id}").json()["name"] == name

        def each_audited_once() -> bool:
            counts = audited(client, 0)
            missing = [id for id in created if counts.get(f"user/{id}", 0) == 0]
            assert all(count == 1 for count in counts.values())
            return not missing

        eventually(each_audited_once, within=30, every=0.3)
        for id, name in random.sample(sorted(created.items()), min(20, len(created))):
            quoted = f'"{name}"'
            eventually(
                lambda id=id, q=quoted: (
                    id in [item["id"] for item in client.get("/search", params={"q": q, "limit": 200}).json()["items"]]
                )
            )


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
