"""The command line's way to a running server: operations over its control socket."""

from pathlib import Path
from typing import Any

import httpx
import msgspec

from backends.ports.stores import Progress
from gateway.admin.operations import OperationError, unwatched, wire
from gateway.admin.streaming import MEDIA_TYPE, Line

_message = msgspec.json.Decoder(Line)


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

    async def call(self, name: str, arguments: dict[str, Any], progress: Progress = unwatched) -> Any:
        """Cancelled, it cancels the operation in the server too: the connection closes."""
        try:
            async with self._client.stream(
                "POST", f"/operations/{name}", content=wire(arguments), headers={"Accept": MEDIA_TYPE}
            ) as answer:
                if answer.status_code != 200:
                    raise OperationError(_detail(await answer.aread(), answer.status_code))
                async for line in answer.aiter_lines():
                    message = _message.decode(line)
                    if message.error is not None:
                        raise OperationError(message.error)
                    if message.result is not msgspec.UNSET:
                        return message.result
                    progress(message.done, message.total)
        except (httpx.TransportError, msgspec.MsgspecError) as error:
            raise OperationError(f"the server on the control socket went away: {error!r}") from None
        raise OperationError("the server on the control socket went away in the midst of its answer")


def _detail(body: bytes, status: int) -> str:
    try:
        problem = msgspec.json.decode(body)
    except msgspec.DecodeError:
        problem = {}
    return str(problem.get("detail", f"the server answered {status}"))
