"""The connections to a real Redis: budgets, cancellation, other servers, and every form of `redis.url`."""

import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from backends.asyncio_bridge import asyncio_loop
from backends.ports.limits import Limit
from backends.ports.shared import SharedStoreAway
from backends.redis.engine import RedisEngine
from backends.redis.errors import RedisUrlError
from backends.redis.link import Link
from backends.redis.url import parse
from tests.engines import free_port
from tests.engines.redis import RedisServer

pytestmark = pytest.mark.engines

OwnRedis = Callable[..., RedisServer]
LIMIT = Limit("caller", "token", 1, 3600, 3)


@asynccontextmanager
async def joined(url: str, *, budget: float = 1.0) -> AsyncIterator[RedisEngine]:
    engine = RedisEngine(url, "link", "db", "me", [LIMIT], budget=budget)
    async with asyncio_loop(), engine.opened():
        await engine.presence.beat(accept=True)
        yield engine


async def remaining(engine: RedisEngine, caller: str = "a") -> int:
    (verdict,) = await engine.limiter.check([(("caller", caller),)])
    return verdict.states[0].remaining


async def test_a_forgotten_script_is_sent_again(own_redis: OwnRedis) -> None:
    redis = own_redis().start()
    async with joined(redis.url) as engine:
        assert await remaining(engine) == 2
        redis.command("SCRIPT", "FLUSH")
        assert await remaining(engine) == 1


async def test_a_server_that_hangs_ends_a_call_within_its_budget_and_mixes_up_no_answers(own_redis: OwnRedis) -> None:
    redis = own_redis().start()
    async with joined(redis.url, budget=0.2) as engine:
        await remaining(engine, "a")
        redis.pause()
        for _ in range(5):
            with trio.fail_after(5), pytest.raises(SharedStoreAway, match="200 ms"):
                await engine.limiter.check([(("caller", "hung"),)])
        redis.resume()
        for caller in "bcdef":
            with trio.fail_after(5):
                while True:
                    try:
                        assert await remaining(engine, caller) in (0, 1, 2)
                        break
                    except SharedStoreAway:
                        pass
        names = [("user", str(n)) for n in range(5)]
        assert len(await engine.cache.read(names)) == 5


async def test_a_call_that_is_cancelled_at_any_moment_leaves_the_next_one_right(own_redis: OwnRedis) -> None:
    redis = own_redis().start()
    async with joined(redis.url, budget=5.0) as engine:
        for step in range(60):
            with trio.move_on_after(step * 0.00005):
                await engine.limiter.check([(("caller", "cancelled"),)])
            (verdict,) = await engine.limiter.check([(("caller", f"after {step}"),)])
            assert verdict.states[0].remaining == 2
            assert await engine.cache.read([("user", f"after {step}")]) != []


async def test_another_run_of_the_server_is_lost_until_it_is_accepted(own_redis: OwnRedis) -> None:
    redis = own_redis().start()
    async with joined(redis.url) as engine:
        redis.kill9()
        with pytest.raises(SharedStoreAway) as refused:
            await remaining(engine)
        assert not refused.value.lost
        redis.start()
        for _ in range(3):
            with pytest.raises(SharedStoreAway) as another:
                await remaining(engine)
            assert another.value.lost
            with pytest.raises(SharedStoreAway):
                await engine.presence.beat(accept=False)
        await engine.presence.beat(accept=True)
        assert await remaining(engine) == 2


async def test_instances_are_counted_and_tell_who_has_lived_since(own_redis: OwnRedis) -> None:
    redis = own_redis().start()
    async with asyncio_loop():
        one, two = (RedisEngine(redis.url, "p", "db", name, []) for name in ("one", "two"))
        async with one.opened(), two.opened():
            assert await one.presence.beat(accept=True) == (1, 0)
            assert await two.presence.beat(accept=True) == (2, 0)
            await trio.sleep(0.01)
            assert await two.presence.beat(accept=False) == (2, 0)
            assert await one.presence.beat(accept=False) == (2, 1)
            assert await two.presence.beat(accept=False) == (2, 1)
            await one.presence.leave()
            assert await two.presence.beat(accept=False) == (1, 0)


async def away(url: str) -> str:
    """Why *url* cannot be joined; "" when it can."""
    engine = RedisEngine(url, "link", "db", "me", [LIMIT], budget=1.0)
    async with asyncio_loop(), engine.opened():
        try:
            await engine.presence.beat(accept=True)
        except SharedStoreAway as refused:
            return str(refused)
        return ""


async def test_why_it_cannot_be_used_is_said_without_a_password(own_redis: OwnRedis) -> None:
    locked = own_redis("--requirepass", "right").start()
    assert "password" in await away(f"redis://:hush@127.0.0.1:{locked.port}")
    assert "hush" not in await away(f"redis://ann:hush@127.0.0.1:{locked.port}")
    assert "Authentication" in await away(f"redis://127.0.0.1:{locked.port}")
    assert str(port := free_port()) in await away(f"redis://127.0.0.1:{port}")
    cluster = own_redis("--cluster-enabled", "yes").start()
    assert "Cluster" in await away(cluster.url)
    redis = own_redis().start()
    redis.command("ACL", "SETUSER", "bob", "on", ">pw", "~*", "+@all", "-info")
    assert "INFO" in await away(f"redis://bob:pw@127.0.0.1:{redis.port}")


async def test_a_user_of_its_own_needs_no_more_than_is_documented(own_redis: OwnRedis) -> None:
    redis = own_redis().start()
    rights = ["~{link}:*", "+@read", "+@write", "+@scripting", "+@connection", "+info", "+time"]
    assert redis.command("ACL", "SETUSER", "weir", "on", ">p@ss", *rights).startswith(b"+OK")
    async with joined(f"redis://weir:p%40ss@127.0.0.1:{redis.port}/0") as engine:
        assert await remaining(engine) == 2
        await engine.cache.read([("user", "a")])
        await engine.cache.evict([("user", "a")])
        await engine.cache.renew()
        await engine.presence.leave()


async def test_a_unix_socket(own_redis: OwnRedis, tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    own_redis("--unixsocket", str(path)).start()
    async with joined(f"unix://{path}?db=1") as engine:
        assert await remaining(engine) == 2
        assert engine.presence.place == f"unix://{path}"


@pytest.fixture
def sentinel(own_redis: OwnRedis, tmp_path: Path) -> Iterator[int]:
    """The port of a Sentinel that knows a master `main`."""
    redis = own_redis().start()
    port = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor main 127.0.0.1 {redis.port} 1\n")
    with (tmp_path / "sentinel.log").open("wb") as log:
        process = subprocess.Popen([redis.program, str(config), "--sentinel"], stdout=log, stderr=log)
    yield port
    process.terminate()
    process.wait(10)


async def test_the_master_that_sentinels_know(sentinel: int) -> None:
    url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel}/main/0"
    with trio.fail_after(20):
        while await away(url):  # noqa: ASYNC110 - a server starts, and has no event
            await trio.sleep(0.1)
    async with joined(url) as engine:
        assert await remaining(engine) == 2
    assert "nobody" in await away(url.replace("/main", "/nobody"))


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://", "redis://localhost:6379/0"),
        ("rediss://ann:secret@h:7000/3", "rediss://h:7000/3"),
        ("unix:///run/r.sock", "unix:///run/r.sock"),
        ("redis+sentinel://ann:secret@a:1,b/main/2", "redis+sentinel://a:1,b/main"),
    ],
)
def test_a_place_is_shown_without_its_password(url: str, place: str) -> None:
    assert parse(url).place == place
    assert Link(url, "p").place == place


def test_sentinels_have_credentials_of_their_own() -> None:
    target = parse("rediss+sentinel://ann:s%40cret@a:1,[::1]:2/main/2?sentinel_password=other&socket_timeout=1.5")
    assert target.sentinels == (("a", 1), ("::1", 2))
    assert (target.service, target.options["db"], target.options["password"]) == ("main", 2, "s@cret")
    assert target.sentinel_options == {"password": "other"}
    assert target.options["ssl"] is True
    assert target.options["socket_timeout"] == 1.5


@pytest.mark.parametrize(
    "url",
    ["redis://:secret@h?colour=blue", "redis+sentinel://:secret@h", "redis+sentinel:///main", "redis://:secret@h:port",
     "redis://:secret@h?db=one"],
)  # fmt: skip
def test_a_wrong_url_is_one_line_without_its_password(url: str) -> None:
    with pytest.raises(RedisUrlError) as refused:
        Link(url, "p")
    assert str(refused.value).startswith("redis.url ")
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)
