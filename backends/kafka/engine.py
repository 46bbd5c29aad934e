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
from backends.ports.entities import StoreUnavailable
from backends.ports.events import CACHE_INVALIDATE
from backends.ports.ledger import ConsumerLedger

log = structlog.get_logger(__name__)

_FIRST_PROBE_S = 0.5
_PROBE_S = 5.0


class Kafka:
    """`problem`: why Kafka cannot be used now, one line; "" while it can."""

    def __init__(self, connection: Connection, ledger: ConsumerLedger, timing: Timing) -> None:
        self._connection = connection
        self._timing = timing
        self._members: list[Member] = []
        self._broadcasts: list[Broadcast] = []
        self.event_log = EventLog(connection, ledger)
        self.problem = ""

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
        """Find out whether Kafka can be used. Raises nothing; `problem` says it."""
        try:
            await crossing(probe, self._connection)
        except (StoreUnavailable, UnusableKafka) as error:
            if str(error) != self.problem:
                log.warning("kafka.away", problem=str(error))
            self.problem = str(error)
        else:
            if self.problem:
                log.info("kafka.back")
            self.problem = ""

    async def look_on(self) -> None:
        wait = _FIRST_PROBE_S
        while True:
            await trio.sleep(wait)
            await self.look()
            wait = min(_PROBE_S, 2 * wait) if self.problem else _PROBE_S


@asynccontextmanager
async def open_kafka(
    connection: Connection, ledger: ConsumerLedger, timing: Timing | None = None
) -> AsyncIterator[Kafka]:
    """Needs asyncio's loop (`asyncio_loop`) around it. Opens nothing yet that is not asked for.

    Raises `UnusableKafka` when the operator must do something first. Kafka being away is no error: it is
    looked for, with backoff, and `problem` says how it stands.
    """
    with quiet():
        async with _opened(connection, ledger, timing or Timing()) as kafka:
            yield kafka


@asynccontextmanager
async def _opened(connection: Connection, ledger: ConsumerLedger, timing: Timing) -> AsyncIterator[Kafka]:
    try:
        await crossing(probe, connection)
        problem = ""
    except StoreUnavailable as error:
        problem = str(error)
        log.warning("kafka.away", problem=problem)
    kafka = Kafka(connection, ledger, timing)
    kafka.problem = problem
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kafka.look_on)
        try:
            yield kafka
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 15.0):
                await kafka.aclose()
