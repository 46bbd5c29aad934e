"""kill -9 in the middle of transactions: what was acknowledged is there, and entities and events agree."""

import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from backends.embedded.database import Database
from backends.embedded.entities import EntityStore
from backends.embedded.event_log import EventLog
from backends.ports.cloudevents import from_record
from backends.ports.entities import Key

# Writes batches of four until it is killed, beside checkpoints; says which numbers were acknowledged.
WRITER = """
import sys
from functools import partial
from itertools import count
from pathlib import Path
import trio
from backends.embedded.database import Database
from backends.embedded.entities import EntityStore
from backends.ports.entities import Decision, Entity, Write
from backends.ports.events import Event

def decide(number, found, removed):
    entity = Entity("user", f"{number:06}", 1, 0.0, 0.0, b"{}" * 500)
    events = (Event("entity.changed", entity.id, "user.created", entity.id, 0.0, b"{}"),
              Event("audit", entity.id, "user.create", entity.id, 0.0, b"{}"))
    return Decision(number, put=(entity,), events=events)

async def checkpoints(database):
    while True:
        await database.checkpoint()
        await trio.sleep(0)

async def main():
    with Database.open(Path(sys.argv[1])) as database:
        store = EntityStore(database)
        await store.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(checkpoints, database)
            for first in count(int(sys.argv[2]), 4):
                numbers = await store.transact([Write((), partial(decide, n)) for n in range(first, first + 4)])
                print(max(numbers), flush=True)

trio.run(main)
"""


@pytest.mark.process
async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "weir.db"
    first = 0
    for _ in range(4):
        acknowledged = write_until_killed(path, first)
        with Database.open(path) as database:
            first = await check(database, acknowledged) + 1


def write_until_killed(path: Path, first: int) -> int:
    """Kill the writer some way into its work; returns the last number it acknowledged."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(first)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(40):
            line = writer.stdout.readline()
        writer.kill()
        rest = writer.stdout.read().decode().rpartition("\n")[0].splitlines()
    return int(rest[-1] if rest else line)


async def check(database: Database, acknowledged: int) -> int:
    """Returns the last number that is stored: at most the batch after what was acknowledged, and whole."""
    entities, log = EntityStore(database), EventLog(database)
    await entities.open()
    await log.open()
    stored = []
    for number in count():
        (found,) = await entities.read([Key("user", f"{number:06}")])
        if found is None:
            break
        stored.append(found.id)
    assert len(stored) - 1 in (acknowledged, acknowledged + 4)
    for topic in ("entity.changed", "audit"):
        records = await log.fetch(await log.start_offsets(topic), 1_000_000)
        assert [from_record(record).id for record in records] == stored
        assert await log.end_offsets(topic) == {(topic, 0): len(stored)}
    integrity = entities._connection.execute("PRAGMA integrity_check").fetchall()
    assert integrity == [("ok",)]
    await entities.aclose()
    await log.aclose()
    return len(stored) - 1
