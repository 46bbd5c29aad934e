"""The `outbox` actor: what writes committed goes to the bus, in order, by one relay among all instances.

At least once: rows are forgotten only after the bus confirmed them, and a relay that dies in between leaves them to
the next one. Consumers act once an event id.
"""

import math

import structlog
import trio

from actors.event_log.messages import Appended
from actors.metrics import Metrics
from actors.outbox.messages import Waiting
from actors.runtime import Actor
from backends.ports import outbox as port
from backends.ports.engine import EngineUnusable
from backends.ports.entities import StoreUnavailable
from backends.ports.event_log import EventLog
from backends.ports.events import NewRecord
from backends.ports.outbox import Backlog, Holder, Outbox

log = structlog.get_logger(__name__)

# No longer: the evictions of writes wait here too, and who hears the bus again trusts its cache again.
_FIRST_RETRY_S, _MAX_RETRY_S = 0.1, 0.5
_GIVE_WAY_S = 0.4
"""Longer than it takes another instance to find that nobody relays."""
_WELL_S = 5.0
_STALE_S = 30.0


class _BusAway(Exception):
    """The rows could not be appended from here."""


def retry_delay(failures: int) -> float:
    """Seconds before the next try after *failures* (from 1) in a row. One relay: no herd, so no jitter."""
    return min(_MAX_RETRY_S, _FIRST_RETRY_S * 2.0 ** min(failures - 1, 10))


def _worth_a_line(failures: int) -> bool:
    """1, 2, 4, 8, …: an outage of a minute is a hundred tries."""
    return failures & (failures - 1) == 0


class OutboxRelay(Actor[Waiting]):
    """Takes rows in the order of their ids, appends them to *event_log*, forgets them. Safe under `retry_once`.

    A local commit wakes it at once, one of another instance by notification; *poll* seconds are for what neither told.
    While the bus or the store is away it tries again with growing waits, and the rows stay. After each failure of the
    bus another instance may have its turn: it may be this one's way there that is cut.

    Args:
        batch: rows appended at once.
        append_timeout: seconds for one append; then its outcome is unknown and it is made again.
        look_every: seconds between two looks at how much waits, for the metrics.
    """

    def __init__(
        self,
        outbox: Outbox,
        event_log: EventLog,
        metrics: Metrics,
        *,
        batch: int = 500,
        append_timeout: float = 10.0,
        poll: float = 0.2,
        look_every: float = 1.0,
        appended: str = "event_log",
    ) -> None:
        self._outbox = outbox
        self._event_log = event_log
        self._batch = batch
        self._append_timeout = append_timeout
        self._poll = poll
        self._look_every = look_every
        self._appended = appended
        self._backlog: Backlog | None = None
        self._looked_at = -math.inf
        self._holding = False
        self._relayed = metrics.counter("weir_outbox_relayed_total", "Events that the bus confirmed.", ("topic",))
        self._failures = metrics.counter(
            "weir_outbox_failures_total", "Tries to relay that failed and are made again.", ("away",)
        )
        self._refused = metrics.counter(
            "weir_outbox_refused_total", "Events that the bus will never take; they are in outbox_refused.", ("topic",)
        )
        metrics.gauge(
            "weir_outbox_rows",
            "Events that wait for the bus (counted up to 100,000), at the instance that relays.",
            (),
            lambda: {(): float(seen.rows)} if (seen := self._seen()) else {},
            "max",
        )
        metrics.gauge(
            "weir_outbox_age_seconds",
            "How long the first of them has waited.",
            (),
            lambda: {(): seen.age} if (seen := self._seen()) else {},
            "max",
        )

    async def on_start(self) -> None:
        self.spawn(self._relay_forever)

    async def handle(self, message: Waiting) -> Backlog | None:
        return self._seen()

    def _seen(self) -> Backlog | None:
        """None: another instance relays, or the store is away."""
        return self._backlog if self._holding or self.clock() - self._looked_at < _STALE_S else None

    async def _relay_forever(self) -> None:
        failures = bus_failures = 0
        while True:
            began = trio.current_time()
            try:
                async with self._outbox.held() as holder:
                    log.info("relaying the outbox")
                    self._holding = True
                    try:
                        await self._relay(holder)
                    finally:
                        self._holding = False
            except _BusAway as away:
                # Those before were of one outage, unless it went well for a while in between.
                bus_failures = 1 if trio.current_time() - began > 2 * self._append_timeout else bus_failures + 1
                self._failures.inc("bus")
                if _worth_a_line(bus_failures):
                    log.warning("the bus does not take the outbox", problem=str(away), failures=bus_failures)
                await trio.sleep(max(_GIVE_WAY_S, retry_delay(bus_failures)))
            except StoreUnavailable as error:
                self._backlog = None
                self._failures.inc("store")
                # One that held for a while was well in between.
                failures = 1 if trio.current_time() - began > _WELL_S else failures + 1
                if _worth_a_line(failures):
                    log.warning("the outbox cannot be relayed", problem=str(error), failures=failures)
                await trio.sleep(retry_delay(failures))

    async def _relay(self, holder: Holder) -> None:
        while True:
            rows = await holder.take(self._batch)
            if not rows:
                self._backlog = Backlog(0, 0.0)
                await holder.wait(self._poll)
                continue
            await self._look(holder)
            await self._append(holder, rows)

    async def _append(self, holder: Holder, rows: list[port.Waiting]) -> None:
        """All at once; if the bus has something against one of them, one by one."""
        try:
            await self._publish([row.record for row in rows])
        except _BusAway:
            raise
        except Exception:
            for row in rows:
                await self._append_one(holder, row)
        else:
            await holder.forget([row.id for row in rows])

    async def _append_one(self, holder: Holder, row: port.Waiting) -> None:
        try:
            await self._publish([row.record])
        except _BusAway:
            raise
        except Exception as error:
            # Nothing would come through behind it. It is kept, and counted.
            log.exception("the bus will never take an event", outbox=row.id, topic=row.record.topic)
            self._refused.inc(row.record.topic)
            await holder.refuse(row.id, repr(error))
        else:
            await holder.forget([row.id])

    async def _publish(self, records: list[NewRecord]) -> None:
        """Raises `_BusAway`, or what the bus has against the records."""
        with trio.move_on_after(self._append_timeout) as scope:
            try:
                await self._event_log.append(records, durable=True)
            except (StoreUnavailable, EngineUnusable) as error:
                # A right that is missing is nothing against the records: an operator gives it, and they go.
                raise _BusAway(str(error)) from error
        if scope.cancelled_caught:
            raise _BusAway(f"an append took longer than {self._append_timeout:g} s")
        topics = frozenset(record.topic for record in records)
        for record in records:
            self._relayed.inc(record.topic)
        # A full mailbox is no loss: whoever waits for events asks again after its own max_wait.
        self.lookup(self._appended).try_tell(Appended(topics))

    async def _look(self, holder: Holder) -> None:
        now = trio.current_time()
        if now - self._looked_at >= self._look_every:
            self._looked_at = now
            self._backlog = await holder.backlog()
