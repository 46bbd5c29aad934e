"""The connections to one Redis, asked within a budget; every failure is a `SharedStoreAway`.

redis-py's defaults are wrong for a gate (10 retries, 5 s): nothing is retried here, and whoever asks has a way on.
"""

import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, TypeVar

import trio
from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from backends.asyncio_bridge import crossing
from backends.ports.shared import SharedStoreAway
from backends.redis.url import RedisUrlError, Target, parse

T = TypeVar("T")

BUDGET_S = 0.05
CONNECT_S = 0.5
OLDEST = (6, 0)
_HEALTH_CHECK_S = 10
_CONNECTIONS = 16
_WARM = 4
"""The limiter, and the cache's reads, fills and evictions may each have a batch under way."""


class AnotherServer(RedisConnectionError):
    """It is not the run of the server that was talked to before."""


class Unfit(RedisConnectionError):
    """What answers is no Redis that Weir can use; the text says what to change."""


class Script:
    """A Lua script of this package, by name."""

    def __init__(self, name: str) -> None:
        self.text = (files(__package__) / "scripts" / f"{name}.lua").read_text("utf-8")
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class Link:
    """Usable within `opened`, which needs asyncio's loop around it. Raises RedisUrlError for a wrong *url*.

    *budget*: seconds that a call may take, a connection made anew included.
    """

    def __init__(self, url: str, prefix: str, *, budget: float = BUDGET_S) -> None:
        target = parse(url)
        self.place = target.place
        self._prefix = f"{{{prefix}}}:"
        self._budget = budget
        self._run: str | None = None
        # Any: redis-py leaves most of its methods untyped.
        self._sentinel: Any = None
        self._pool: Any = None
        try:
            self._pool = self._pool_of(target)
            self._pool.make_connection()  # touches no network: says which option of the URL it does not know
        except (TypeError, ValueError, RedisError) as error:
            # redis-py names the option here, never a value.
            raise RedisUrlError(f"has an option that redis-py does not take: {error}") from None
        self._client: Any = Redis(connection_pool=self._pool)

    def key(self, *parts: str) -> bytes:
        """A key of this installation. In braces, so that on a Cluster all would be in one slot."""
        return (self._prefix + ":".join(parts)).encode("utf-8", "surrogatepass")

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Connects to nothing by itself; closes what was connected."""
        try:
            yield
        finally:
            with trio.move_on_after(1.0, shield=True), contextlib.suppress(RedisError, OSError):
                await crossing(self._close)

    async def run(self, script: Script, keys: Sequence[bytes], *args: bytes | int, within: float | None = None) -> Any:
        """Run *script* in one round trip, two where the server does not know it yet. Raises SharedStoreAway."""
        return await self._call(self._evaluate, script, keys, args, within=within)

    async def command(self, *args: bytes | str | int) -> Any:
        """Raises SharedStoreAway."""
        return await self._call(self._client.execute_command, *args)

    async def connect(self, *, accept: bool, within: float) -> None:
        """Have the connections that batches will need. *accept*: of whichever run of the server answers."""
        if accept:
            self._run = None
        await self._call(self._warm, within=within)

    # Awaited in trio.

    async def _call(self, function: Callable[..., Awaitable[T]], *args: Any, within: float | None = None) -> T:
        seconds = self._budget if within is None else within
        try:
            with trio.fail_after(seconds):
                return await crossing(function, *args)
        except trio.TooSlowError:
            raise SharedStoreAway(f"no answer within {seconds * 1000:.0f} ms") from None
        except (RedisError, OSError) as error:
            raise SharedStoreAway(str(error) or repr(error), lost=isinstance(error, AnotherServer)) from error

    # Awaited in asyncio.

    async def _evaluate(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | int]) -> Any:
        try:
            return await self._client.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
        except NoScriptError:  # a server that was restarted, or flushed; EVAL has it remember
            return await self._client.execute_command("EVAL", script.text, len(keys), *keys, *args)

    async def _warm(self) -> None:
        async with contextlib.AsyncExitStack() as taken:
            for _ in range(_WARM):
                connection = await self._pool.get_connection()
                taken.push_async_callback(self._pool.release, connection)

    async def _greet(self, connection: Any) -> None:
        """After connecting: sign in, then look who answers."""
        await connection.on_connect()
        await connection.send_command("INFO", "server", check_health=False)
        try:
            info = _fields(await connection.read_response())
        except ResponseError as error:
            raise Unfit(f"{error}; Weir needs INFO to notice that the server is another run than before") from None
        if info.get("redis_mode") == "cluster":
            raise Unfit("this is a Redis Cluster, which is not supported: name a single server or Sentinels")
        version = info.get("redis_version", "0")
        if tuple(int(part) for part in version.split(".")[:2] if part.isdecimal()) < OLDEST:
            raise Unfit(f"Redis {version} is too old: {'.'.join(map(str, OLDEST))} or later is needed")
        run = info.get("run_id", "")
        if self._run is None:
            self._run = run
        elif run != self._run:
            raise AnotherServer("the server was restarted, or another one took its place")

    async def _close(self) -> None:
        await self._client.aclose()
        await self._pool.aclose()
        if self._sentinel is not None:
            await self._sentinel.aclose()

    def _pool_of(self, target: Target) -> Any:
        options = {
            "socket_timeout": self._budget,
            "socket_connect_timeout": CONNECT_S,
            "health_check_interval": _HEALTH_CHECK_S,
            **target.options,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,
            "decode_responses": False,
            "redis_connect_func": self._greet,
        }
        if not target.sentinels:
            return ConnectionPool(max_connections=_CONNECTIONS, **options)
        quick = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout", "retry", "protocol")}
        quick["socket_timeout"] = CONNECT_S
        sentinel: Any = Sentinel
        pool: Any = SentinelConnectionPool
        self._sentinel = sentinel(target.sentinels, sentinel_kwargs={**quick, **(target.sentinel_options or {})})
        return pool(target.service, self._sentinel, max_connections=_CONNECTIONS, **options)


def _fields(info: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}
