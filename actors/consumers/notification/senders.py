"""What an endpoint's actor sends with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from actors.consumers.notification.deliveries_of import Webhook
from actors.consumers.notification.outcomes import Outcome
from backends.ports.stores import Delivery


class WebhookCaller(Protocol):
    async def send(self, webhook: Webhook, delivery: Delivery) -> Outcome:
        """One attempt, within a deadline of its own. Cancelled: the receiver may have got it."""
        ...

    async def aclose(self) -> None: ...


class EmailSender(Protocol):
    batch: int
    """The most deliveries of a `send`: what is sent in one go is stored in one go, and sent again after a kill."""

    async def send(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        """One attempt at each, within a deadline of its own. Cancelled: they may have been sent."""
        ...


@dataclass(frozen=True, slots=True)
class Senders:
    webhooks: WebhookCaller
    email: EmailSender


class Slots:
    """How many attempts may be under way at once, over all endpoints. Those that failed last share a few of their own:
    any number of endpoints that hang hold up each other, and no one else."""

    def __init__(self, well: int = 64, failing: int = 16) -> None:
        self.well = trio.CapacityLimiter(well)
        self.failing = trio.CapacityLimiter(failing)
