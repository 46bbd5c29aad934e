"""A worker's own control socket, as its parent asks it."""

from pathlib import Path
from typing import Any

import httpx
import msgspec

from gateway.admin.readiness import Readiness
from gateway.admin.readings import Reading

_readings = msgspec.json.Decoder(list[Reading])


class Silent(Exception):
    """It does not answer: it is starting, ending or hanging."""


class RemoteWorker:
    """Every call is an exchange of its own, under a deadline of *patience* seconds. Raises Silent."""

    def __init__(self, control: Path, patience: float = 2.0) -> None:
        self._control = control
        self._patience = patience

    async def readiness(self) -> Readiness:
        answer = await self._ask("GET", "/readyz")
        said: dict[str, Any] = answer.json()
        return Readiness(answer.status_code == 200, said["status"] == "degraded", tuple(said["reasons"]))

    async def snapshot(self) -> dict[str, Any]:
        tree: dict[str, Any] = (await self._ask("GET", "/tree")).json()
        return tree

    async def readings(self) -> list[Reading]:
        return _readings.decode((await self._ask("GET", "/readings")).content)

    async def crash(self, id: str) -> bool:
        """Crash that actor on its next message; False: there is none."""
        return (await self._ask("POST", f"/tree/{id}/kill")).status_code == 202

    async def _ask(self, method: str, path: str) -> httpx.Response:
        # Neither certificates nor proxies are looked for: that would take longer than all the rest.
        transport = httpx.AsyncHTTPTransport(uds=str(self._control), verify=False, trust_env=False)
        try:
            async with httpx.AsyncClient(
                transport=transport, base_url="http://weir", timeout=self._patience, trust_env=False
            ) as client:
                return await client.request(method, path)
        except (httpx.HTTPError, OSError) as error:
            raise Silent(repr(error)) from None
