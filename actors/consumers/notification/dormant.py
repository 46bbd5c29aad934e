"""The deliveries of a store that nobody works off: the operator's command line opened it while no server runs."""

from collections.abc import Callable
from typing import Any

from actors.consumers.notification.messages import Backlog, Reset, Waiting, Wake
from actors.runtime import Actor, Reject
from backends.ports.entities import StoreUnavailable
from backends.ports.stores import DeliveryStore


class DormantDeliveries(Actor[Wake | Reset | Backlog]):
    """Makes dead deliveries pending again, for the next server to send. Sends nothing itself."""

    def __init__(self, store: DeliveryStore, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now

    async def handle(self, message: Wake | Reset | Backlog) -> Any:
        if isinstance(message, Wake):
            return None
        try:
            if isinstance(message, Backlog):
                oldest = await self._store.oldest()
                age = 0.0 if oldest is None else max(0.0, self._now() - oldest)
                return Waiting(await self._store.pending(), age)
            return await self._store.reset(message.id, self._now())
        except StoreUnavailable as error:
            raise Reject(error) from None
