"""A bounded pool of connections to PostgreSQL, and how Weir lives with a server that is away, hung or promoted.

asyncpg's own pool hands a connection on after a cancellation once the server has confirmed it, and a hung server
confirms nothing. Here a connection whose work did not end by itself is closed at once: the server rolls back.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import structlog
import trio

from backends.asyncio_bridge import bare, crossing
from backends.ports.engine import Health
from backends.ports.entities import StoreUnavailable
from backends.postgres.errors import UnusablePostgres, breaks_connection, described, refusal, unavailable
from backends.postgres.schema import migrate

T = TypeVar("T")
Connection = Any
"""An asyncpg.Connection; asyncpg has no types of its own."""

log = structlog.get_logger(__name__)

OLDEST_SERVER = 13
SCHEMA = "weir"
# Migrations wait for one another, and may rewrite tables.
MIGRATION_S = 120.0
CLOSING_S = 1.0
_FIRST_RETRY_S, _MAX_RETRY_S = 0.05, 1.0


def retry_delay(failures: int) -> float:
    """Seconds until the next attempt to connect after *failures* (from 1) in a row. Short at most: callers wait for
    none of it, and a server that is back should be noticed within the second."""
    return min(_MAX_RETRY_S, _FIRST_RETRY_S * 2.0 ** min(failures - 1, 10))


def place_of(dsn: str) -> str:
    """*dsn* as it may be shown: `user@host:port/database`, without the password and the options."""
    parts = urlsplit(dsn)
    hosts = parts.netloc.rpartition("@")[2] or ",".join(parse_qs(parts.query).get("host", ["local socket"]))
    user = f"{unquote(parts.username)}@" if parts.username else ""
    return f"{user}{hosts}{parts.path}"


class Pool:
    """At most *size* connections, opened when they are needed; used by every adapter of the engine.

    Args:
        budget: seconds for one call, waiting for a connection included; the server gives up a little earlier.
        connect_timeout: seconds to open one connection.

    `call` raises `StoreUnavailable` for the engine's trouble and passes on what a statement did wrong. It must be
    called within `opened`, and that within the asyncio loop.
    """

    def __init__(self, dsn: str, *, size: int = 12, budget: float = 5.0, connect_timeout: float = 2.0) -> None:
        self.place = place_of(dsn)
        self._dsn = dsn
        self._budget = budget
        self._connect_timeout = connect_timeout
        self._room = trio.CapacityLimiter(size)
        self._idle: list[Connection] = []
        self._reached = False
        self._problem: str | None = None
        self._failures = 0
        self._not_before = -math.inf
        self._lost = trio.Event()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Reach the server and bring its schema up to date; while it is away, keep trying beside the block.

        Raises `UnusablePostgres` for what waiting would not cure, when that is known before the block begins.
        """
        with bare():
            async with trio.open_nursery() as nursery:
                try:
                    await self._reach()
                except StoreUnavailable as error:
                    log.warning("PostgreSQL is away; looking for it", problem=str(error))
                nursery.start_soon(self._look_for_it)
                try:
                    yield
                finally:
                    nursery.cancel_scope.cancel()
                    with trio.move_on_after(CLOSING_S, shield=True):
                        await crossing(self._close_idle)
                    self._drop_idle()

    def health(self) -> Health:
        return Health(self._reached, () if self._problem is None else (self._problem,))

    @property
    def idle(self) -> int:
        """Connections that are open and not in use."""
        return len(self._idle)

    @property
    def in_use(self) -> int:
        return self._room.borrowed_tokens

    async def call(
        self, work: Callable[[Connection], Awaitable[T]], *, budget: float | None = None, again: bool = False
    ) -> T:
        """Run *work* (asyncio) on a connection of its own, in one crossing.

        *again*: it changes nothing, so on a connection that turned out to be dead it is run once more.
        Cancelled, or out of time: the connection is closed, and the server rolls back what was not committed.
        """
        if not self._reached:
            raise StoreUnavailable(self._problem or f"postgres.dsn ({self.place}) was not reached yet")
        seconds = budget or self._budget
        with trio.move_on_after(seconds):
            async with self._room:
                try:
                    return await crossing(self._run, work, budget, again)
                except Exception as error:
                    self._raise(error)
        raise StoreUnavailable(f"postgres.dsn ({self.place}): no answer within {seconds:g} s")

    async def fetch(self, statement: str, *parameters: object, budget: float | None = None) -> list[Any]:
        """The rows of a query that changes nothing."""

        async def rows(connection: Connection) -> list[Any]:
            found: list[Any] = await connection.fetch(statement, *parameters)
            return found

        return await self.call(rows, budget=budget, again=True)

    async def execute(self, statement: str, *parameters: object, budget: float | None = None) -> int:
        """Run one statement that changes rows, in a transaction of its own; how many it changed."""

        async def changed(connection: Connection) -> int:
            status: str = await connection.execute(statement, *parameters)
            return int(status.rpartition(" ")[2])

        return await self.call(changed, budget=budget)

    @asynccontextmanager
    async def session(self) -> AsyncIterator["Session"]:
        """A connection beside the pool, for what lives as long as a session (an advisory lock, LISTEN)."""
        session = Session(self)
        try:
            await session.open()
            yield session
        finally:
            session.close()

    async def guarded(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """asyncio's `function(*args)` within the budget. Raises as `call` does."""
        with trio.move_on_after(self._budget):
            try:
                return await crossing(function, *args)
            except Exception as error:
                self._raise(error)
        raise StoreUnavailable(f"postgres.dsn ({self.place}): no answer within {self._budget:g} s")

    async def connect(self) -> Connection:
        """asyncio: a new connection, nobody's but the caller's. Raises what asyncpg raises, or `UnusablePostgres`."""
        milliseconds = int(self._budget * 900)
        connection = await asyncpg.connect(
            self._dsn,
            timeout=self._connect_timeout,
            # After a failover the old primary may live on as a standby, beside us in the DSN or behind its address.
            target_session_attrs=None if "target_session_attrs" in self._dsn else "read-write",
            server_settings={
                "application_name": "weir",
                "search_path": SCHEMA,
                "synchronous_commit": "on",
                "statement_timeout": str(milliseconds),
                # No transaction of ours waits for anything but the server: one that does belongs to a hung process.
                "idle_in_transaction_session_timeout": str(milliseconds),
                # A machine of ours that vanishes gives its locks back within seconds.
                "tcp_keepalives_idle": "5",
                "tcp_keepalives_interval": "2",
                "tcp_keepalives_count": "3",
                "jit": "off",
            },
        )
        if (major := connection.get_server_version().major) < OLDEST_SERVER:
            connection.terminate()
            raise UnusablePostgres(
                self.place, f"it is PostgreSQL {major}", f"Weir needs PostgreSQL {OLDEST_SERVER} or newer"
            )
        return connection

    # Within asyncio.

    async def _run(self, work: Callable[[Connection], Awaitable[T]], budget: float | None, again: bool) -> T:
        connection = self._take()
        if connection is not None:
            try:
                return await self._run_on(connection, work, budget)
            except Exception as error:
                if not (again and breaks_connection(error)):
                    raise
        return await self._run_on(await self._connected(), work, budget)

    async def _run_on(
        self, connection: Connection, work: Callable[[Connection], Awaitable[T]], budget: float | None
    ) -> T:
        try:
            if budget is None:
                result = await work(connection)
            else:
                await connection.execute(f"SET statement_timeout = {int(budget * 1000)}")
                result = await work(connection)
                await connection.execute("RESET statement_timeout")
        except asyncpg.PostgresError as error:
            # The statement failed, the session is as before; unless it is over, or was changed on the way.
            if breaks_connection(error):
                self._drop_idle()
            if breaks_connection(error) or budget is not None or connection.is_closed() or _busy(connection):
                connection.terminate()
            else:
                self._idle.append(connection)
            raise
        except BaseException as error:
            connection.terminate()
            if isinstance(error, Exception) and breaks_connection(error):
                self._drop_idle()
            raise
        self._idle.append(connection)
        return result

    def _take(self) -> Connection | None:
        """The connection used last, so that the others may grow old and few."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    async def _connected(self) -> Connection:
        if trio.current_time() < self._not_before:
            raise StoreUnavailable(self._problem or "")
        try:
            connection = await self.connect()
        except Exception as error:
            self._failed(error)
            raise
        self._succeeded()
        return connection

    async def _prepare(self) -> None:
        connection = await self.connect()
        try:
            await connection.execute(f"SET statement_timeout = {int(MIGRATION_S * 1000)}")
            await migrate(connection, self.place, SCHEMA)
            await connection.execute("RESET statement_timeout")
        except BaseException:
            connection.terminate()
            raise
        self._idle.append(connection)

    async def _close_idle(self) -> None:
        while (connection := self._take()) is not None:
            await connection.close(timeout=CLOSING_S)

    def _drop_idle(self) -> None:
        """A broken connection seldom comes alone."""
        while self._idle:
            self._idle.pop().terminate()

    # Around it.

    async def _reach(self) -> None:
        """Raises `StoreUnavailable` or `UnusablePostgres`."""
        try:
            with trio.fail_after(MIGRATION_S):
                await crossing(self._prepare)
        except Exception as error:
            self._failed(error)
            self._raise(refusal(self.place, error) or error)
        self._reached = True
        self._succeeded()

    async def _look_for_it(self) -> None:
        """While the server is away, knock: a request that comes when it is back should find a connection."""
        while True:
            if self._reached and self._problem is None:
                self._lost = trio.Event()
                await self._lost.wait()
            await trio.sleep_until(self._not_before)
            try:
                if self._reached:
                    await self.call(_nothing)
                else:
                    await self._reach()
            except UnusablePostgres as error:
                # At the start this ends the process; now it may be an administrator's work half done.
                log.error("PostgreSQL refuses us", problem=str(error))
                await trio.sleep(_MAX_RETRY_S)
            except StoreUnavailable:
                pass
            except Exception:
                log.exception("PostgreSQL cannot be used")
                await trio.sleep(_MAX_RETRY_S)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._not_before = trio.current_time() + retry_delay(self._failures)
        if isinstance(error, UnusablePostgres):
            self._problem = str(error)
        else:
            self._problem = f"postgres.dsn ({self.place}): {described(error)}"
        if self._reached and self._failures == 1:
            log.warning("PostgreSQL is away", problem=self._problem)
        self._lost.set()

    def _succeeded(self) -> None:
        if self._problem is not None and self._failures:
            log.info("PostgreSQL is back", place=self.place)
        self._failures, self._problem, self._not_before = 0, None, -math.inf

    def _raise(self, error: Exception) -> NoReturn:
        if isinstance(error, UnusablePostgres) and self._reached:
            raise StoreUnavailable(str(error)) from error
        if isinstance(error, StoreUnavailable | UnusablePostgres):
            raise error
        away = unavailable(self.place, error)
        if away is None:
            raise error
        raise away from error


class Session:
    """One connection of somebody's own. Methods raise `StoreUnavailable`, once it is lost for ever."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._connection: Connection | None = None

    async def open(self) -> None:
        self._connection = await self._pool.guarded(self._pool.connect)

    def close(self) -> None:
        """At once: politely would be to wait for the server, and a lock is to be free now."""
        if self._connection is not None:
            self._connection.terminate()

    async def fetch(self, statement: str, *parameters: object) -> list[Any]:
        assert self._connection is not None
        rows: list[Any] = await self._pool.guarded(self._connection.fetch, statement, *parameters)
        return rows

    async def fetchval(self, statement: str, *parameters: object) -> Any:
        return (await self.fetch(statement, *parameters))[0][0]

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Call *heard* for each notification, and once more when the connection is lost."""
        assert self._connection is not None
        self._connection.add_termination_listener(lambda *_: heard())
        await self._pool.guarded(self._connection.add_listener, channel, lambda *_: heard())


def _busy(connection: Connection) -> bool:
    return bool(connection.is_in_transaction())


async def _nothing(connection: Connection) -> None:
    await connection.execute("SELECT 1")
