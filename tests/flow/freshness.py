"""Who writes here and who reads there: how old what is read is."""

import json
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field

import trio

from tests.flow.load import Connection


@dataclass
class Freshness:
    """Versions are the numbers in the users' names. Times are `trio.current_time()`."""

    committed: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0]))
    """By user and version: when the write was answered."""
    reads: list[tuple[float, str, int]] = field(default_factory=list)
    """When each was begun, of whom, and the version that it gave."""
    failures: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    async def write(self, port: int, token: str, ids: list[str], *, pause: float = 0.05) -> None:
        """One after the other until cancelled. A refused write is tried again: versions have no gaps."""
        connection, turn = Connection(port, token), 0
        try:
            while True:
                id = ids[turn % len(ids)]
                name = f"version {len(self.committed[id])}"
                body = json.dumps({"name": name, "email": "u@example.com", "bio": ""}).encode()
                status, answer = await connection.request("PUT", f"/users/{id}", body)
                if status == 200:
                    self.committed[id].append(trio.current_time())
                    turn += 1
                else:
                    self.failures.append(f"write: {status} {answer[:200]!r}")
                await trio.sleep(pause)
        finally:
            await connection.aclose()

    async def read(self, port: int, token: str, ids: list[str]) -> None:
        connection, turn = Connection(port, token), 0
        try:
            while True:
                turn += 1
                id, began = ids[turn % len(ids)], trio.current_time()
                status, answer = await connection.request("GET", f"/users/{id}")
                self.latencies.append(trio.current_time() - began)
                if status == 200:
                    self.reads.append((began, id, int(json.loads(answer)["name"].split()[1])))
                else:
                    self.failures.append(f"read: {status} {answer[:200]!r}")
                await trio.sleep(0.01)
        finally:
            await connection.aclose()

    def oldest(self, since: float = 0.0, until: float = float("inf")) -> float:
        """The most seconds that had gone by, at a read begun between the two, since the version it gave was out of
        date."""
        worst = 0.0
        for began, id, version in self.reads:
            if since <= began < until:
                times = self.committed[id]
                if version + 1 < bisect_right(times, began):
                    worst = max(worst, began - times[version + 1])
        return worst
