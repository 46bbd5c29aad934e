"""Pools on a database of their own, and a way to cut work short at each of its awaits."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from backends import asyncio_bridge
from backends.asyncio_bridge import asyncio_loop
from backends.postgres.pool import Pool
from tests.engines.postgres import Server


@asynccontextmanager
async def open_pool(dsn: str, **options: Any) -> AsyncIterator[Pool]:
    pool = Pool(dsn, **options)
    async with asyncio_loop(), pool.opened():
        yield pool


class Cut:
    """Stands in for `crossing`: cancels the trio scope *scope* when asyncio's side suspends for the *at*-th time."""

    def __init__(self, at: int) -> None:
        self.scope = trio.CancelScope()
        self.struck = False
        self._left = at

    async def __call__(self, function: Callable[..., Awaitable[Any]], /, *args: Any) -> Any:
        async def counted() -> Any:
            return await _Counted(function(*args), self._suspended)

        return await asyncio_bridge.crossing(counted)

    def _suspended(self) -> None:
        if self._left == 0 and not self.struck:
            self.struck = True
            self.scope.cancel()
        self._left -= 1


class _Counted:
    """Awaits a coroutine and calls *suspended* each time that it suspends."""

    def __init__(self, coroutine: Awaitable[Any], suspended: Callable[[], None]) -> None:
        self._steps = coroutine.__await__()
        self._suspended = suspended

    def __await__(self) -> Iterator[Any]:
        send: Callable[[], Any] = lambda: self._steps.send(None)  # noqa: E731
        while True:
            try:
                future = send()
            except StopIteration as done:
                return done.value
            self._suspended()
            try:
                value = yield future
            except BaseException as error:
                send = _thrower(self._steps, error)
            else:
                send = _sender(self._steps, value)


def _sender(steps: Any, value: Any) -> Callable[[], Any]:
    return lambda: steps.send(value)


def _thrower(steps: Any, error: BaseException) -> Callable[[], Any]:
    return lambda: steps.throw(error)


def sessions(server: Server, database: str, state: str) -> int:
    """How many sessions of Weir in *database* are in *state* (`active`, `idle`, `idle in transaction`)."""
    return int(
        server.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'weir' "
            f"AND datname = '{database}' AND state LIKE '{state}%'"
        )
    )
