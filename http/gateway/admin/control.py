"""What the admin app may see and do of the running system."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from actors.metrics import Metrics
from actors.runtime import System
from backends.ports.engine import Health
from gateway.admin.app import RollError
from gateway.admin.readiness import Readiness, readiness
from gateway.admin.readings import Reading, read


@dataclass(slots=True)
class Phase:
    """Where the process is in its life. Set by the composition root."""

    started: bool = False
    draining: bool = False


class Control:
    """Args: *request_path*: the ids without which no request can be answered; *before_scrape* brings
    numbers up to date that only actors know."""

    def __init__(
        self,
        system: System,
        phase: Phase,
        request_path: Collection[str],
        *,
        openapi: Callable[[], dict[str, Any]],
        before_scrape: Callable[[], Awaitable[None]],
        metrics: Metrics,
        engine: Callable[[], Health],
    ) -> None:
        self._system = system
        self._phase = phase
        self._request_path = request_path
        self._openapi = openapi
        self._before_scrape = before_scrape
        self._metrics = metrics
        self._engine = engine

    async def readiness(self) -> Readiness:
        return readiness(
            self._system.snapshot(),
            started=self._phase.started,
            draining=self._phase.draining,
            request_path=self._request_path,
            engine=self._engine(),
        )

    async def snapshot(self) -> dict[str, Any]:
        return self._system.snapshot()

    async def crash(self, id: str) -> None:
        self._system.crash(id)

    async def roll(self) -> int:
        raise RollError("this server is one process: there are no workers to replace, restart it")

    async def readings(self) -> list[Reading]:
        await self._before_scrape()
        return read(self._metrics)

    def openapi(self) -> dict[str, Any]:
        return self._openapi()
