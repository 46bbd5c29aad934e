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
from backends.ports.event_log import Topic
from backends.ports.events import CACHE_INVALIDATE
from backends.ports.ledger import ConsumerLedger

log = structlog.get_logger(__name__)

_FIRST_PROBE_S = 0.5
_PROBE_S = 5.0
_CLOSE_S = 15.0


class Kafka:
    """Made anywhere, used within `opened`."""

    def __init__(self, connection: Connection, ledger: ConsumerLedger, timing: Timing | None = None) -> None:
        self._connection = connection
        self._timing = timing or Timing()
        self._members: list[Member] = []
        self._broadcasts: list[Broadcast] = []
        self.event_log = EventLog(connection, ledger)
        self._problem = ""
        self._reached = False

    @asynccontextmanager
    async def opened(self, topics: Sequence[Topic] = ()) -> AsyncIterator[None]:
        """To be entered within the asyncio loop. What opens connections opens them when it is used.

        Raises `UnusableKafka` when the operator must do something first, for *topics* too, which are made sure of.
        Kafka being away is no error: it is looked for, with backoff, and `health` says how it stands.
        """
        with quiet():
            await self._look()
            if self._reached:
                await self._ensure(topics)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look_on)
                try:
                    yield
                finally:
                    nursery.cancel_scope.cancel()
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_S):
                        await self._close()

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

    async def _ensure(self, topics: Sequence[Topic]) -> None:
        try:
            await self.event_log.ensure_topics(topics)
        except StoreUnavailable as error:  # its actor tries again
            log.warning("kafka.topics_later", problem=str(error))

    async def _close(self) -> None:
        """Also what an actor that crashed did not close."""
        for member in self._members:
            await member.leave()
        for broadcast in self._broadcasts:
            await broadcast.aclose()
        await self.event_log.aclose()

    async def _look(self) -> None:
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

    async def _look_on(self) -> None:
        wait = _FIRST_PROBE_S
        while True:
            await trio.sleep(wait)
            try:
                await self._look()
            except UnusableKafka as error:  # it was fine when we began: an operator is at work
                self._problem = str(error)
                log.error("kafka.unusable", problem=self._problem)
            wait = min(_PROBE_S, 2 * wait) if self._problem else _PROBE_S


@asynccontextmanager
async def open_kafka(
    connection: Connection, ledger: ConsumerLedger, topics: Sequence[Topic] = (), timing: Timing | None = None
) -> AsyncIterator[Kafka]:
    """`Kafka.opened` of a new one."""
    kafka = Kafka(connection, ledger, timing)
    async with kafka.opened(topics):
        yield kafka
