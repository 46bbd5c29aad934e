"""The command line's way to a running server: operations over its control socket."""

from pathlib import Path
from typing import Any

import httpx
import msgspec

from gateway.admin.operations import OperationError, wire


class RemoteOperations:
    """Calls operations on the server behind *socket*. Raises `OperationError` with the server's own words."""

    def __init__(self, socket: Path) -> None:
        transport = httpx.AsyncHTTPTransport(uds=str(socket))
        self._client = httpx.AsyncClient(transport=transport, base_url="http://weir", timeout=60.0)

    async def __aenter__(self) -> "RemoteOperations":
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._client.__aexit__(*exc_info)

    async def alive(self) -> bool:
        """Whether a server answers there; False for a socket file that a kill left behind."""
        try:
            return (await self._client.get("/healthz", timeout=2.0)).status_code == 200
        except httpx.TransportError:
            return False

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        content = wire(arguments)
        try:
            answer = await self._client.post(f"/operations/{name}", content=content)
        except httpx.TransportError as error:
            raise OperationError(f"the server on the control socket went away: {error!r}") from None
        try:
            body = msgspec.json.decode(answer.content)
        except msgspec.DecodeError:
            body = {}
        if answer.status_code != 200:
            raise OperationError(body.get("detail", f"the server answered {answer.status_code}"))
        return body
