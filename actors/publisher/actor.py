"""The `publisher` actor: collects events and appends them to the log in batches, in order.

At least once: between an append that succeeded and the note of it (a crash, a timeout with unknown outcome)
the batch is appended again. Events carry ids, and consumers act once an id.
"""

from collections import deque
from typing import Any, assert_never

import structlog
import trio

from actors.event_log.messages import Append
from actors.metrics import Metrics
from actors.publisher.buffer import EventBuffer
from actors.publisher.messages import Flush, Publish
from actors.runtime import Actor, ActorError, Later
from backends.ports.events import Event

log = structlog.get_logger(__name__)

_FIRST_RETRY_S = 0.1
_MAX_RETRY_S = 5.0


def retry_delay(failures: int) -> float:
    """Seconds before the next try after *failures* (from 1) in a row. One publisher: no herd, so no jitter."""
    return min(_MAX_RETRY_S, _FIRST_RETRY_S * 2.0 ** min(failures - 1, 10))


class Publisher(Actor[Publish | Flush]):
    """Takes `Publish` (asked, it answers whether there was room) and `Flush`. Safe under `retry_once`.

    An event waits at most *linger* seconds for company, less when *batch* are together. While the log is
    away it is asked again with backoff, and the buffer fills. On a stop what is left is appended within
    *stop_timeout* seconds, which should be below the child's `shutdown`.
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
    ) -> None:
        self._buffer = buffer
        self._linger = linger
        self._batch = batch
        self._append_timeout = append_timeout
        self._stop_timeout = stop_timeout
        self._durable = durable
        self._event_log = event_log
        self._flushes: deque[tuple[int, Later]] = deque()
        self._arrived = trio.Event()
        self._hurry = trio.Event()
        self._dropped = metrics.counter(
            "weir_audit_dropped_total",
            "Events lost before the log (full: no room; invalid: not encodable).",
            ("reason",),
        )
        self._failures = metrics.counter(
            "weir_publisher_append_failures_total", "Appends that failed and were tried again."
        )
        metrics.gauge("weir_publisher_buffered", "Events waiting for the log.", (), lambda: {(): float(len(buffer))})

    async def on_start(self) -> None:
        self.spawn(self._append_forever)

    async def handle_batch(self, messages: list[Publish | Flush]) -> list[Any]:
        return [self._handle(message) for message in messages]

    async def on_stop(self) -> None:
        self._flushes.clear()  # settled by the runtime when the incarnation ended
        with trio.move_on_after(self._stop_timeout):
            await self._append_until(self._buffer.offered)
        if len(self._buffer):
            log.error("events were left in the buffer", events=len(self._buffer))

    def _handle(self, message: Publish | Flush) -> bool | Later | None:
        match message:
            case Publish(event=event):
                return self._offer(event)
            case Flush():
                if not len(self._buffer):
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

    async def _append_forever(self) -> None:
        buffer = self._buffer
        while True:
            if not len(buffer):
                self._arrived = trio.Event()
                await self._arrived.wait()
            self._hurry = trio.Event()
            if len(buffer) < self._batch and not self._flushes:
                with trio.move_on_after(self._linger):
                    await self._hurry.wait()
            await self._append_until(buffer.offered)

    async def _append_until(self, sequence: int) -> None:
        """Append until the first *sequence* events ever offered are in the log, however long that takes.

        Cancelled: whole batches are in the log or still in the buffer; one may be both.
        """
        buffer = self._buffer
        failures = 0
        while buffer.forgotten < sequence:
            records = buffer.head(min(self._batch, sequence - buffer.forgotten))
            try:
                await self.lookup(self._event_log).ask(Append(records, self._durable), timeout=self._append_timeout)
            except ActorError as error:
                failures += 1
                self._failures.inc()
                log.warning("the event log did not take a batch", events=len(records), error=repr(error))
                await trio.sleep(retry_delay(failures))
                continue
            failures = 0
            buffer.forget(len(records))
            while self._flushes and self._flushes[0][0] <= buffer.forgotten:
                self._flushes.popleft()[1].answer(None)
