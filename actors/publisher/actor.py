"""The `publisher` actor: collects events and appends them to the log in batches, in order.

With a spool every batch goes through it: it is on disk before the log is asked, and what waits there for a log that
is away waits without memory, and over a kill -9. One way for good times and bad ones, so one order.

At least once: between an append that succeeded and the note of it (a crash, a timeout with unknown outcome)
the batch is appended again. Events carry ids, and consumers act once an id.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, assert_never

import structlog
import trio

from actors.event_log.messages import Append
from actors.metrics import Metrics
from actors.publisher.buffer import EventBuffer
from actors.publisher.messages import Flush, Publish
from actors.runtime import Actor, ActorError, Later, Reject
from backends.ports.events import Event, NewRecord
from backends.ports.spool import Spool

log = structlog.get_logger(__name__)

_FIRST_RETRY_S = 0.1
_MAX_RETRY_S = 5.0
_SYNC_S = 1.0


def retry_delay(failures: int) -> float:
    """Seconds before the next try after *failures* (from 1) in a row. One publisher: no herd, so no jitter."""
    return min(_MAX_RETRY_S, _FIRST_RETRY_S * 2.0 ** min(failures - 1, 10))


class Publisher(Actor[Publish | Flush]):
    """Takes `Publish` (asked, it answers whether there was room) and `Flush`. Safe under `retry_once`.

    An event waits at most *linger* seconds for company, less when *batch* are together. While the log is
    away it is asked again with backoff, and the spool (or without one the buffer) fills; a full spool shuts the
    buffer. On a stop what is left is appended within *stop_timeout* seconds, which should be below the child's
    `shutdown`; a spool keeps the rest.
    """

    def __init__(
        self,
        buffer: EventBuffer,
        metrics: Metrics,
        *,
        linger: float = 0.02,
        batch: int = 500,
        append_timeout: float = 5.0,
        stop_timeout: float = 3.0,
        durable: bool = False,
        event_log: str = "event_log",
        spool: Spool | None = None,
    ) -> None:
        self._buffer = buffer
        self._linger = linger
        self._batch = batch
        self._append_timeout = append_timeout
        self._stop_timeout = stop_timeout
        self._durable = durable
        self._event_log = event_log
        self._flushes: deque[tuple[int, Later]] = deque()
        self._spool = spool
        self._arrived = trio.Event()
        self._hurry = trio.Event()
        self._spooled = trio.Event()
        self._room = trio.Event()
        self._dropped = metrics.counter(
            "weir_audit_dropped_total",
            "Events lost before the log (full: no room; invalid: not encodable).",
            ("reason",),
        )
        self._failures = metrics.counter(
            "weir_publisher_append_failures_total", "Appends that failed and were tried again."
        )
        metrics.gauge("weir_publisher_buffered", "Events waiting for the log.", (), lambda: {(): float(len(buffer))})
        if spool is not None:
            _measure(spool, metrics)

    async def on_start(self) -> None:
        if self._spool is None:
            self.spawn(self._append_forever)
            return
        self.spawn(self._spill_forever, self._spool)
        self.spawn(self._deliver_forever, self._spool)
        self.spawn(_sync_forever, self._spool)

    async def handle_batch(self, messages: list[Publish | Flush]) -> list[Any]:
        return [self._handle(message) for message in messages]

    async def on_stop(self) -> None:
        self._flushes.clear()  # settled by the runtime when the incarnation ended
        if self._spool is not None:
            await self._stop_spool(self._spool)
            return
        with trio.move_on_after(self._stop_timeout):
            await self._append_until(self._buffer.offered)
        if len(self._buffer):
            log.error("events were left in the buffer", events=len(self._buffer))

    async def _stop_spool(self, spool: Spool) -> None:
        self._spill(spool)
        with trio.move_on_after(self._stop_timeout):
            while spool.events:
                await self._deliver(spool)
        if spool.events:
            log.warning("events wait in the spool for the next start", events=spool.events)
        if len(self._buffer):
            log.error("events were left in the buffer", events=len(self._buffer))
        await _sync(spool)

    def _handle(self, message: Publish | Flush) -> bool | Later | None:
        match message:
            case Publish(event=event):
                return self._offer(event)
            case Flush():
                if self._published() >= self._buffer.offered:
                    return None
                later = self.later()
                self._flushes.append((self._buffer.offered, later))
                self._hurry.set()
                return later
            case _:
                assert_never(message)

    def _offer(self, event: Event) -> bool:
        try:
            taken = self._buffer.offer(event)
        except Exception:
            # It would fail again for ever; the others of its batch must not be published twice for it.
            log.exception("an event cannot be encoded and is dropped")
            self._dropped.inc("invalid")
            return False
        if not taken:
            self._dropped.inc("full")
            return False
        self._arrived.set()
        if len(self._buffer) >= self._batch:
            self._hurry.set()
        return True

    def _published(self) -> int:
        """How many of the events ever offered are in the log, without gaps. What is in the spool came last."""
        return self._buffer.forgotten - (self._spool.events if self._spool is not None else 0)

    async def _append_forever(self) -> None:
        while True:
            await self._company()
            await self._append_until(self._buffer.offered)

    async def _company(self) -> None:
        """Return when there are events, and company for the first of them or no time left to wait for it."""
        buffer = self._buffer
        if not len(buffer):
            self._arrived = trio.Event()
            await self._arrived.wait()
        self._hurry = trio.Event()
        if len(buffer) < self._batch and not self._flushes:
            with trio.move_on_after(self._linger):
                await self._hurry.wait()

    async def _append_until(self, sequence: int) -> None:
        """Append until the first *sequence* events ever offered are in the log, however long that takes.

        Cancelled: whole batches are in the log or still in the buffer; one may be both.
        """
        buffer = self._buffer
        while buffer.forgotten < sequence:
            records = buffer.head(min(self._batch, sequence - buffer.forgotten))
            await self._append(records)
            buffer.forget(len(records))
            self._answer_flushes()

    async def _append(self, records: Sequence[NewRecord]) -> None:
        """Append *records*, however often it takes. One that the log will never take is dropped, and counted."""
        failures = 0
        while True:
            try:
                await self.lookup(self._event_log).ask(
                    Append(tuple(records), self._durable), timeout=self._append_timeout
                )
                return
            except ActorError as error:
                if isinstance(error, Reject) and isinstance(error.error, ValueError):
                    await self._append_singly(records, error.error)
                    return
                failures += 1
                self._failures.inc()
                log.warning("the event log did not take a batch", events=len(records), error=repr(error))
            await trio.sleep(retry_delay(failures))

    async def _append_singly(self, records: Sequence[NewRecord], refusal: ValueError) -> None:
        if len(records) > 1:
            for record in records:
                await self._append((record,))
            return
        log.error("the event log refuses an event for good; it is dropped", error=str(refusal))
        self._dropped.inc("invalid")

    def _answer_flushes(self) -> None:
        while self._flushes and self._flushes[0][0] <= self._published():
            self._flushes.popleft()[1].answer(None)

    # With a spool.

    async def _spill_forever(self, spool: Spool) -> None:
        while True:
            await self._company()
            while not self._spill(spool):
                self._room = trio.Event()
                with trio.move_on_after(_SYNC_S):  # also without a delivery: the disk may have room again
                    await self._room.wait()

    def _spill(self, spool: Spool) -> bool:
        """Move what is in the buffer to the spool. False: it is full, and the buffer is shut until there is room."""
        buffer = self._buffer
        while len(buffer):
            records = buffer.head(self._batch)
            if not spool.write(records):
                buffer.shut = True
                return False
            buffer.forget(len(records))
            self._spooled.set()
        buffer.shut = False
        return True

    async def _deliver_forever(self, spool: Spool) -> None:
        while True:
            while not spool.events:
                self._spooled = trio.Event()
                with trio.move_on_after(_SYNC_S):  # what another process left comes into the spool by nobody's hand
                    await self._spooled.wait()
            await self._deliver(spool)

    async def _deliver(self, spool: Spool) -> None:
        await self._append(spool.head(self._batch))
        spool.forget()
        self._room.set()
        self._answer_flushes()


async def _sync_forever(spool: Spool) -> None:
    """What waits for longer than a moment is to survive a power failure, too."""
    while True:
        await trio.sleep(_SYNC_S)
        if spool.age() > _SYNC_S:
            await _sync(spool)


async def _sync(spool: Spool) -> None:
    try:
        await spool.sync()
    except OSError as error:
        log.error("the spool could not be synced to disk", error=repr(error))


def _measure(spool: Spool, metrics: Metrics) -> None:
    metrics.gauge("weir_spool_bytes", "Bytes on disk that wait for the log.", (), lambda: {(): float(spool.size)})
    metrics.gauge("weir_spool_events", "Events on disk that wait for the log.", (), lambda: {(): float(spool.events)})
    metrics.gauge(
        "weir_spool_age_seconds", "Since the oldest of them was published.", (), lambda: {(): spool.age()}, "max"
    )
