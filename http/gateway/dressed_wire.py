"""The client's wire as a target gets it: what it starts is an answer of the pipeline's."""

from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from gateway.request import Duplex, Response, Wire

ExchangeT = TypeVar("ExchangeT", contravariant=True)


class Dresser(Protocol[ExchangeT]):
    """The pipeline, as a wire sees it."""

    async def upload(self, exchange: ExchangeT, take: Callable[[], Awaitable[bytes]]) -> bytes:
        """What *take* gives of the body. Raises like it."""
        ...

    def dress(self, exchange: ExchangeT, response: Response) -> Response:
        """The head as it goes out."""
        ...


class DressedWire(Generic[ExchangeT]):
    """*wire*, for the request of *exchange*: the head it starts goes out like any other answer's."""

    def __init__(self, dresser: Dresser[ExchangeT], exchange: ExchangeT, wire: Wire) -> None:
        self._dresser = dresser
        self._exchange = exchange
        self._wire = wire
        self.has_body = wire.has_body
        self.length = wire.length
        self.body_limit = wire.body_limit
        self.switches = wire.switches
        self.wait_closed = wire.wait_closed
        self.write = wire.write
        self.cut = wire.cut

    async def receive(self) -> bytes:
        return await self._dresser.upload(self._exchange, self._wire.receive)

    async def read(self) -> bytes:
        return await self._dresser.upload(self._exchange, self._wire.read)

    async def start(self, response: Response) -> None:
        await self._wire.start(self._dresser.dress(self._exchange, response))

    async def switch(self, response: Response) -> Duplex:
        return await self._wire.switch(self._dresser.dress(self._exchange, response))
