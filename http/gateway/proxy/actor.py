"""The actor `upstream:URL`: looks after one upstream. The requests themselves never ask it."""

from dataclasses import dataclass
from typing import Any

import trio

from actors.runtime import Actor
from gateway.proxy.origin import Origin, Unreached
from gateway.proxy.reader import BadAnswer
from gateway.proxy.transport import Broken, TooSlow


@dataclass(frozen=True, slots=True)
class Tick:
    """It is time to look after it."""


class Upstream(Actor[Tick]):
    """Closes connections that were idle for too long, and asks for the check path, where one is set.

    *origin* outlives it: a crash costs no request. Stopped, it closes the idle connections.
    """

    def __init__(self, origin: Origin, *, tick: float = 1.0, check_every: float = 5.0) -> None:
        self._origin = origin
        self._tick = tick
        self._check_every = check_every
        self._checking = False
        self._next_check = 0.0

    async def on_start(self) -> None:
        self._next_check = self.clock()
        self._origin.keeps = True
        self.timer(self._tick, Tick(), every=self._tick)

    async def on_stop(self) -> None:
        self._origin.keeps = False
        self._origin.close_idle()

    async def handle(self, message: Tick) -> None:
        now = self.clock()
        self._origin.reap(now - self._origin.limits.idle_connection)
        if self._origin.check_path and not self._checking and now >= self._next_check:
            self._checking = True
            self._next_check = now + self._check_every
            self.spawn(self._check)

    def describe(self) -> dict[str, Any]:
        return self._origin.describe()

    async def _check(self) -> None:
        origin = self._origin
        try:
            problem = await checked(origin)
        finally:
            self._checking = False
        if problem is None:
            origin.succeeded()
        else:
            origin.failure(problem, probe=origin.health.ejected_until is not None)


async def checked(origin: Origin) -> str | None:
    """Why *origin* is not well: it does not answer the check with a status below 400 in time; None: it is well."""
    limits = origin.limits
    problem = f"its check took longer than {limits.connect:g} s"
    with trio.move_on_after(limits.connect):
        try:
            status = await _status(origin)
        except (Unreached, Broken, BadAnswer, TooSlow) as error:
            problem = f"its check failed: {error}"
        else:
            return None if status < 400 else f"its check was answered {status}"
    return problem


async def _status(origin: Origin) -> int:
    connection = await origin.connect()
    try:
        connection.reader.begin("GET")
        await connection.transport.send_all(
            b"GET %b HTTP/1.1\r\nhost: %b\r\nconnection: close\r\nuser-agent: weir\r\n\r\n"
            % (origin.check_path.encode("ascii"), origin.authority)
        )
        while not connection.reader.head:
            data = await connection.transport.receive()
            if data:
                connection.reader.feed(data)
            else:
                connection.reader.feed_end()
        return connection.reader.status
    finally:
        connection.transport.close()
