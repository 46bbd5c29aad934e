"""The whole server on a real Redis that is killed, hangs, refuses or is not there: the API does not go with it."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx
import pytest
import trio

from tests.engines import free_port
from tests.engines.redis import RedisServer
from tests.flow.load import Connection, Outcome, reader, writer
from tests.flow.server import Server, eventually

pytestmark = [pytest.mark.process, pytest.mark.engines]

PATCH = {"content-type": "application/merge-patch+json"}
LIMITS = """
[[limits]]
name = "caller"
key = "token"
quota = {quota}
window = "1s"
burst = {burst}
fail = "{fail}"
"""


def limited(quota: int = 100_000, burst: int = 100_000, fail: str = "local") -> str:
    return LIMITS.format(quota=quota, burst=burst, fail=fail)


@contextmanager
def weir(folder: Path, url: str, limits: str | None = None) -> Iterator[Server]:
    folder.mkdir(exist_ok=True)
    server = Server(folder, f'[redis]\nurl = "{url}"\n{limited() if limits is None else limits}')
    server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            assert server.stop() == 0
    lines = server.log_lines()
    assert [line for line in lines if line["level"] in ("error", "critical")] == []
    assert "Traceback" not in server.log.read_text()


def readyz(server: Server) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{server.admin_url}/readyz").json()
    return answer


def is_up(server: Server) -> bool:
    return server.metric("weir_shared_store_up") == 1


def new_user(client: httpx.Client, name: str = "u") -> str:
    answer = client.post("/users", json={"name": name, "email": "u@example.com", "bio": ""})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_limits_are_counted_and_values_kept_in_redis(tmp_path: Path, own_redis: Callable[..., RedisServer]) -> None:
    redis = own_redis().start()
    with weir(tmp_path / "a", redis.url, limited(quota=1, burst=5)) as server:
        assert readyz(server)["status"] == "ready"
        token = server.token()
        with server.client(token) as client:
            statuses = [client.get("/users/nobody").status_code for _ in range(6)]
        assert statuses == [404] * 5 + [429]
        keys = redis.command("KEYS", "*").decode()
        assert "{weir}:limit:caller:1/1/5:token:" in keys
        assert "token_validation" in keys
        # A reader of Redis learns nothing that opens anything.
        everything = b"".join(redis.command("GET", key) for key in keys.split("\r\n") if "cache" in key)
        assert token.encode() not in everything
        assert token not in keys
        assert server.metric("weir_cache_reads_total", tier="redis", outcome="miss") >= 1


def test_two_instances_share_a_limit(tmp_path: Path, own_redis: Callable[..., RedisServer]) -> None:
    redis = own_redis().start()
    limits = limited(quota=1, burst=10).replace('"token"', '"address"')
    with weir(tmp_path / "a", redis.url, limits) as one, weir(tmp_path / "b", redis.url, limits) as two:
        eventually(lambda: one.metric("weir_shared_store_instances") == 2, within=5)
        statuses = [httpx.get(f"{one.url if n % 2 else two.url}/openapi.json").status_code for n in range(20)]
        assert 10 <= statuses.count(200) <= 12
        assert statuses[-1] == 429


async def offered(server: Server, token: str, statuses: list[tuple[float, int]]) -> None:
    """Ask without a pause, until cancelled."""
    connection = Connection(server.port, token)
    try:
        while True:
            status, _ = await connection.request("GET", "/users/nobody")
            statuses.append((trio.current_time(), status))
    finally:
        await connection.aclose()


def most_in_a_row(statuses: list[tuple[float, int]], seconds: float) -> int:
    """The most that were admitted within any *seconds*."""
    admitted = [at for at, status in statuses if status != 429]
    most = start = 0
    for end, at in enumerate(admitted):
        while at - admitted[start] > seconds:
            start += 1
        most = max(most, end - start + 1)
    return most


async def test_redis_killed_and_back_costs_no_5xx_and_the_limit_holds(
    tmp_path: Path, own_redis: Callable[..., RedisServer]
) -> None:
    redis = own_redis().start()
    quota, burst, seconds = 40, 20, 6.0
    with weir(tmp_path / "a", redis.url, limited(quota=quota, burst=burst)) as server:
        token = await trio.to_thread.run_sync(server.token)
        statuses: list[tuple[float, int]] = []
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(offered, server, token, statuses)
            await trio.sleep(2)
            redis.kill9()
            await trio.sleep(1)
            away = await trio.to_thread.run_sync(readyz, server)
            assert away["status"] == "degraded"
            assert "127.0.0.1" in away["reasons"][0]
            await trio.sleep(4)
            await trio.to_thread.run_sync(redis.start)
            began = trio.current_time()
            await trio.to_thread.run_sync(eventually, lambda: is_up(server), 10)
            assert trio.current_time() - began < 5
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert {status for _, status in statuses} == {404, 429}
        assert most_in_a_row(statuses, seconds) <= 2 * (burst + quota * seconds)
        assert sum(status == 404 for _, status in statuses) > quota * 4  # and nobody was locked out
        assert server.metric("weir_rate_limit_fallbacks_total", outcome="decided") > 0


@pytest.mark.parametrize(("fail", "expected"), [("local", {200, 429}), ("open", {200}), ("closed", {503})])
def test_a_limit_fails_as_it_says(
    fail: str, expected: set[int], tmp_path: Path, own_redis: Callable[..., RedisServer]
) -> None:
    redis = own_redis()
    limits = limited(quota=1, burst=5, fail=fail).replace('"token"', '"address"')
    with weir(tmp_path / "a", redis.url, limits) as server:  # never there: the server starts all the same
        state = readyz(server)
        assert state["status"] == "degraded"
        assert str(redis.port) in state["reasons"][0]
        answers = [httpx.get(f"{server.url}/openapi.json") for _ in range(10)]
        assert {answer.status_code for answer in answers} == expected
        if fail == "closed":
            assert answers[0].headers["retry-after"] == "1"
            assert "caller" in answers[0].json()["detail"]
        redis.start()
        eventually(lambda: readyz(server)["status"] == "ready", within=5)
        assert httpx.get(f"{server.url}/openapi.json").status_code in (200, 429)


async def test_redis_hung_during_writes_slows_nobody_and_leaves_nothing_stale(
    tmp_path: Path, own_redis: Callable[..., RedisServer]
) -> None:
    redis = own_redis().start()
    with weir(tmp_path / "a", redis.url) as server:
        token = await trio.to_thread.run_sync(server.token)
        with server.client(token) as client:
            ids = [new_user(client) for _ in range(10)]
            for id in ids:
                client.get(f"/users/{id}")
        outcome, versions = Outcome(), dict.fromkeys(ids, 0)
        stale: list[str] = []
        hung_at = trio.current_time() + 1

        async def rewrite(mine: list[str]) -> None:
            """Write, then read what was written: here at once, whatever Redis does."""
            connection = Connection(server.port, token)
            try:
                while True:
                    for id in mine:
                        versions[id] += 1
                        body = json.dumps({"name": str(versions[id]), "email": "u@example.com", "bio": ""}).encode()
                        status, _ = await connection.request("PUT", f"/users/{id}", body)
                        assert status == 200
                        status, answer = await connection.request("GET", f"/users/{id}")
                        assert status == 200
                        if json.loads(answer)["name"] != str(versions[id]):
                            stale.append(f"{id}: {answer!r}, wrote {versions[id]}")
                        await trio.sleep(0.02)
            finally:
                await connection.aclose()

        async with trio.open_nursery() as nursery:
            for n in range(2):
                nursery.start_soon(rewrite, ids[n::2])
            for n in range(4):
                nursery.start_soon(reader, outcome, server.port, token, ids, n)
            await trio.sleep_until(hung_at)
            redis.pause()
            await trio.sleep(3)
            redis.resume()
            await trio.to_thread.run_sync(eventually, lambda: is_up(server), 10)
            await trio.to_thread.run_sync(
                eventually, lambda: server.metric("weir_cache_unconfirmed_evictions") == 0, 10
            )
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert stale == []
        assert outcome.failures == []
        assert quantiles(outcome.read_latencies, n=100)[98] < 0.25
        # What the local tier forgets comes from Redis: it must be what was written last.
        with server.client(token) as client:
            for id in ids:
                assert client.get(f"/users/{id}").json()["name"] == str(versions[id])


def test_a_wrong_password_is_told_and_cured_without_a_restart(
    tmp_path: Path, own_redis: Callable[..., RedisServer]
) -> None:
    redis = own_redis("--requirepass", "right").start()
    url = f"redis://:hush-hush@127.0.0.1:{redis.port}/0"
    with weir(tmp_path / "a", url) as server:
        state = readyz(server)
        assert state["status"] == "degraded"
        assert "password" in state["reasons"][0]
        assert httpx.get(f"{server.url}/openapi.json").status_code == 200
        redis.command("CONFIG", "SET", "requirepass", "hush-hush", password="right")
        eventually(lambda: readyz(server)["status"] == "ready", within=5)
        with server.admin() as admin:
            assert "hush-hush" not in admin.get("/tree").text
    assert "hush-hush" not in server.log.read_text()


def test_a_full_redis_and_a_replica_are_gone_around(tmp_path: Path, own_redis: Callable[..., RedisServer]) -> None:
    redis = own_redis().start()
    with weir(tmp_path / "a", redis.url) as server, server.client(server.token()) as client:
        id = new_user(client, "first")
        for broken, mended in (
            (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
            (("REPLICAOF", "127.0.0.1", str(free_port())), ("REPLICAOF", "NO", "ONE")),
        ):
            assert redis.command(*broken).startswith(b"+OK")
            for turn in range(20):
                assert client.put(f"/users/{id}", json={"name": f"{broken[0]} {turn}", "email": "u@example.com",
                                                        "bio": ""}).status_code == 200  # fmt: skip
                assert client.get(f"/users/{id}").json()["name"] == f"{broken[0]} {turn}"
            eventually(lambda: readyz(server)["status"] == "degraded", within=5)
            assert redis.command(*mended).startswith(b"+OK")
            eventually(lambda: readyz(server)["status"] == "ready", within=5)
            assert client.get(f"/users/{id}").json()["name"] == f"{broken[0]} 19"


def test_an_emptied_redis_and_a_forgotten_script_are_no_matter(
    tmp_path: Path, own_redis: Callable[..., RedisServer]
) -> None:
    redis = own_redis().start()
    with weir(tmp_path / "a", redis.url) as server, server.client(server.token()) as client:
        id = new_user(client)
        for command in (("SCRIPT", "FLUSH"), ("FLUSHALL",), ("CLIENT", "KILL", "TYPE", "normal")):
            redis.command(*command)
            for _ in range(3):
                assert client.get(f"/users/{id}").status_code == 200
                assert client.patch(f"/users/{id}", json={"bio": command[0]},
                                    headers=PATCH).status_code == 200  # fmt: skip
        eventually(lambda: readyz(server)["status"] == "ready", within=5)


def test_a_server_that_is_told_to_stop_while_redis_hangs_stops(
    tmp_path: Path, own_redis: Callable[..., RedisServer]
) -> None:
    redis = own_redis().start()
    with weir(tmp_path / "a", redis.url) as server:
        redis.pause()
        began = time.monotonic()
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert time.monotonic() - began < 10
        redis.resume()


async def test_writers_and_readers_of_many_keys_while_redis_comes_and_goes(
    tmp_path: Path, own_redis: Callable[..., RedisServer]
) -> None:
    redis = own_redis().start()
    with weir(tmp_path / "a", redis.url) as server:
        token = await trio.to_thread.run_sync(server.token)
        with server.client(token) as client:
            ids = [new_user(client) for _ in range(20)]
        outcome = Outcome()
        async with trio.open_nursery() as nursery:
            for n in range(6):
                nursery.start_soon(reader, outcome, server.port, token, ids, n)
            nursery.start_soon(writer, outcome, server.port, token, "w")
            for _ in range(3):
                await trio.sleep(0.7)
                redis.kill9()
                await trio.sleep(0.7)
                await trio.to_thread.run_sync(redis.start)
            await trio.to_thread.run_sync(eventually, lambda: is_up(server), 10)
            nursery.cancel_scope.cancel()
        assert outcome.failures == []
        assert outcome.answers[200] > 100
        assert outcome.answers[201] > 10
