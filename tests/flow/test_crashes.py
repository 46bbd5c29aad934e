"""A crashed stage costs callers time, not errors."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trio

from tests.flow.load import Outcome, reader, writer
from tests.flow.server import Server, running

pytestmark = pytest.mark.process

STAGES = ("rate_limiter", "authenticator", "router", "cache_manager")
# The promise is for a minute; CI looks at a part of it, `make test-long` at all.
SECONDS = 12


async def under_load(server: Server, seconds: float, connections: int, disturb) -> Outcome:
    token = await trio.to_thread.run_sync(server.token)
    outcome = Outcome()
    with server.client(token) as client:
        ids = [create(client) for _ in range(20)]
    async with trio.open_nursery() as nursery:
        for n in range(connections):
            if n % 4:
                nursery.start_soon(reader, outcome, server.port, token, ids, n)
            else:
                nursery.start_soon(writer, outcome, server.port, token, f"writer {n}")
        with trio.move_on_after(seconds):
            await disturb()
        nursery.cancel_scope.cancel()
    return outcome


def create(client: httpx.Client) -> str:
    answer = client.post("/users", json={"name": "u", "email": "u@example.com", "bio": ""})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def kill_stages(server: Server, every: float) -> None:
    with server.admin() as admin:
        while True:
            for stage in STAGES:
                assert admin.post(f"/tree/{stage}/kill").status_code == 202
            await trio.sleep(every)


async def run_with_killed_stages(server: Server, seconds: float) -> None:
    before = server.restarts()
    outcome = await under_load(server, seconds, 32, lambda: kill_stages(server, 3.0))
    assert outcome.failures == []
    assert outcome.answers[200] > 100
    assert outcome.answers[201] > 100
    after = server.restarts()
    for stage in STAGES:
        assert after[stage] - before[stage] >= int(seconds / 3) - 1, f"{stage} was not restarted as often as killed"


async def test_stages_killed_under_load_fail_no_request(server):
    await run_with_killed_stages(server, SECONDS)


@pytest.mark.long
async def test_stages_killed_under_load_for_a_minute_fail_no_request(server):
    await run_with_killed_stages(server, 60)


@pytest.fixture
def server_of_its_own(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path, allow_kill=True) as server:
        yield server


async def test_a_hundred_kills_of_one_actor_within_five_seconds_leave_the_others_serving(server_of_its_own):
    server = server_of_its_own  # it ends deep in backoff: nobody else's promise holds on it
    pid = server.process.pid

    async def disturb() -> None:
        with server.admin() as admin:
            for _ in range(100):
                admin.post("/tree/rate_limiter/kill")
                await trio.sleep(0.04)

    outcome = await under_load(server, 10, 4, disturb)
    assert server.process.poll() is None
    os.kill(pid, 0)
    # The killed stage is in backoff now and then; what it answers, it answers right, and nothing hangs.
    assert outcome.answers[200] > 0
    assert {failure for failure in outcome.failures if "504" not in failure and "503" not in failure} == set()
    assert server.restarts()["rate_limiter"] >= 3, "it came back, in backoff the more often it was killed"


async def test_a_sigterm_under_load_lets_every_request_end(tmp_path: Path) -> None:
    with running(tmp_path) as server:

        async def stop() -> None:
            await trio.sleep(1)
            assert await trio.to_thread.run_sync(server.stop) == 0

        outcome = await under_load(server, 40, 16, stop)
        assert outcome.answers[200] > 0
        assert outcome.answers[201] > 0
        # Who found the server gone is no failure here; a wrong answer is.
        assert [failure for failure in outcome.failures if "Error" not in failure] == []
        assert [line["event"] for line in server.log_lines() if "were cut" in line["event"]] == []
