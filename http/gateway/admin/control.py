"""What the admin app may see and do of the running system."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from actors.runtime import System
from backends.ports.engine import Health
from gateway.admin.readiness import Readiness, readiness


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
        engine: Callable[[], Health],
    ) -> None:
        self._system = system
        self._phase = phase
        self._request_path = request_path
        self._openapi = openapi
        self._before_scrape = before_scrape
        self._engine = engine

    def readiness(self) -> Readiness:
        return readiness(
            self.snapshot(),
            started=self._phase.started,
            draining=self._phase.draining,
            request_path=self._request_path,
            engine=self._engine(),
        )

    def snapshot(self) -> dict[str, Any]:
        return self._system.snapshot()

    def crash(self, id: str) -> None:
        self._system.crash(id)

    def openapi(self) -> dict[str, Any]:
        return self._openapi()

    async def before_scrape(self) -> None:
        await self._before_scrape()
