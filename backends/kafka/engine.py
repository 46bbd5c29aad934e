"""Kafka as one thing: the log, members of groups and the broadcast over one set of settings."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
import trio

from backends.asyncio_bridge import crossing
from backends.kafka.aio import quiet
from backends.kafka.broadcast import Broadcast
from backends.kafka.connection import Connection, probe
from backends.kafka.errors import UnusableKafka
from backends.kafka.event_log import EventLog
from backends.kafka.member import Member, Timing
from backends.ports.engine import Health
from backends.ports.entities import StoreUnavailable
from backends.ports.events import CACHE_INVALIDATE
from backends.ports.ledger import ConsumerLedger

log = structlog.get_logger(__name__)

_FIRST_PROBE_S = 0.5
_PROBE_S = 5.0


class Kafka:
    """Made by `open_kafka`."""

    def __init__(self, connection: Connection, ledger: ConsumerLedger, timing: Timing) -> None:
        self._connection = connection
        self._timing = timing
        self._members: list[Member] = []
        self._broadcasts: list[Broadcast] = []
        self.event_log = EventLog(connection, ledger)
        self._problem = ""
        self._reached = False

    def health(self) -> Health:
        return Health(self._reached, (self._problem,) if self._problem else ())

    def member(self, group: str, topics: Sequence[str]) -> Member:
        """For one incarnation of a consumer; it has to `leave`."""
        member = Member(
            self._connection,
            group,
            topics,
            prepare=self.event_log.ensure_present,
            committed=self.event_log.forget_attempts,
            timing=self._timing,
        )
        self._members = [made for made in self._members if not made.closed]
        self._members.append(member)
        return member

    def broadcast(self, topic: str = CACHE_INVALIDATE) -> Broadcast:
        broadcast = Broadcast(self._connection, topic)
        self._broadcasts.append(broadcast)
        return broadcast

    async def aclose(self) -> None:
        """Also what an actor that crashed did not close."""
        for member in self._members:
            await member.leave()
        for broadcast in self._broadcasts:
            await broadcast.aclose()
        await self.event_log.aclose()

    async def look(self) -> None:
        """Find out whether Kafka can be used; `health` says it. Raises `UnusableKafka`."""
        try:
            await crossing(probe, self._connection)
        except StoreUnavailable as error:
            if str(error) != self._problem:
                log.warning("kafka.away", problem=str(error))
            self._problem = str(error)
        else:
            if self._problem:
                log.info("kafka.back")
            self._problem, self._reached = "", True

    async def look_on(self) -> None:
        wait = _FIRST_PROBE_S
        while True:
            await trio.sleep(wait)
            try:
                await self.look()
            except UnusableKafka as error:  # it was fine when we began: an operator is at work
                self._problem = str(error)
                log.error("kafka.unusable", problem=self._problem)
            wait = min(_PROBE_S, 2 * wait) if self._problem else _PROBE_S


@asynccontextmanager
async def open_kafka(
    connection: Connection, ledger: ConsumerLedger, timing: Timing | None = None
) -> AsyncIterator[Kafka]:
    """Needs asyncio's loop (`asyncio_loop`) around it. Opens nothing yet that is not asked for.

    Raises `UnusableKafka` when the operator must do something first. Kafka being away is no error: it is
    looked for, with backoff, and `health` says how it stands.
    """
    with quiet():
        async with _opened(connection, ledger, timing or Timing()) as kafka:
            yield kafka


@asynccontextmanager
async def _opened(connection: Connection, ledger: ConsumerLedger, timing: Timing) -> AsyncIterator[Kafka]:
    kafka = Kafka(connection, ledger, timing)
    await kafka.look()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kafka.look_on)
        try:
            yield kafka
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 15.0):
                await kafka.aclose()
