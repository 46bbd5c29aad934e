"""What one call of a consumer does: hand its records over, and decide what became of each.

The consumer decides which records; this says to their lanes whether they are done, wait, or come again. It never
says anything of a partition that was given up or rewound meanwhile: its records are somebody else's.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import Random

import structlog
import trio

from actors.consumers.dead_letters import dead_letter
from actors.consumers.dispatch import Call, Part
from actors.consumers.failure import Failure, failure_of, parse_failure
from actors.consumers.group_log import GroupLog
from actors.consumers.handler import Handler
from actors.consumers.metrics import ConsumerMetrics
from actors.consumers.partitions import Delivered, Waiting
from actors.consumers.retry import GiveUp, RetryPolicy, after_failure
from actors.consumers.sink import root_error, verdict_of
from actors.consumers.trials import Trials
from actors.runtime import ActorError, Trace, use_trace
from backends.ports.cloudevents import Undecodable, from_record
from backends.ports.entities import StoreUnavailable
from backends.ports.event_log import Attempt
from backends.ports.events import Partition, Record

log = structlog.get_logger(__name__)

PROCESS_ENDED = "ProcessEnded: the process ended while this record was in hand"
"""The error of an attempt that was counted, and of whose end nobody has told."""


class Work:
    """Runs calls, any number of them at a time. *commit* stores what is done.

    `outages`: failures in a row that say the sink is away; the consumer waits then. A success ends it.
    """

    def __init__(
        self,
        group: str,
        handler: Handler,
        group_log: GroupLog,
        *,
        metrics: ConsumerMetrics,
        policy: RetryPolicy,
        timeout: float,
        service: str,
        now: Callable[[], float],
        rng: Random,
        trials: Trials,
        commit: Callable[[], Awaitable[None]],
    ) -> None:
        self.outages = 0
        self.away_until = 0.0
        self._group = group
        self._handler = handler
        self._log = group_log
        self._metrics = metrics
        self._policy = policy
        self._timeout = timeout
        self._service = service
        self._now = now
        self._rng = rng
        self._trials = trials
        self._commit = commit
        self._under_way: dict[tuple[Partition, int], Attempt] = {}
        """Attempts that were counted before they began, and what to restore where one is cut off."""

    async def run(self, call: Call) -> None:
        """Cancelled: what is under way counts neither as done nor as failed."""
        if call.waiting is not None and call.waiting.failure is not None:
            await self._bury(call.parts[0], call.waiting, call.waiting.failure)
        elif call.alone or (call.waiting is not None and call.waiting.attempt.error == PROCESS_ENDED):
            await self._trials.run(partial(self._trial, call.parts[0], call.waiting))
        elif call.waiting is not None:
            await self._try_again(call.parts[0], call.waiting)
        else:
            await self._hand_over(call)

    async def restore(self, partition: Partition | None = None) -> None:
        """Uncount the attempts that were cut off, of *partition* or of all."""
        for (of, offset), attempt in list(self._under_way.items()):
            if partition in (None, of):
                del self._under_way[of, offset]
                await self._log.save_attempt(of, offset, attempt)

    def forget(self, partition: Partition) -> None:
        """Another member counts from here on."""
        for of, offset in list(self._under_way):
            if of == partition:
                del self._under_way[of, offset]

    def resume(self, record: Record, attempt: Attempt) -> Waiting:
        """An earlier life tried *record*: go on counting, and wait out what is left of its delay."""
        # The wall clock may have been set back since; no wait is longer than the policy's longest.
        waiting = Waiting(record, attempt, min(attempt.due_at, self._now() + self._policy.cap))
        if attempt.attempts >= self._policy.attempts:
            waiting.failure = parse_failure(attempt.error)
        return waiting

    # Handing over.

    async def _hand_over(self, call: Call) -> None:
        """All at once; where that fails, or one of them is no event, one by one."""
        batch = _decoded(call)
        error = await self._try(batch) if batch else None
        if batch and error is None:
            for part in call.parts:
                self._all_done(part, part.records)
        elif error is not None and verdict_of(error) == "away":
            self._away(error)
            for part in call.parts:
                if not part.stale:
                    part.lane.put_back(part.records)
        else:
            for part in call.parts:
                await self._one_by_one(part, error if call.size == 1 else None)

    async def _one_by_one(self, part: Part, error: Exception | None) -> None:
        """*error*: of the one record, which is not tried again at once. A record whose key waits goes behind."""
        behind: list[Record] = []
        for index, record in enumerate(part.records):
            if part.stale:
                return
            if part.lane.waits(record):
                behind.append(record)
                continue
            error = error or await self._try_record(record)
            if error is None:
                self._all_done(part, [record])
            elif verdict_of(error) == "away":
                self._away(error)
                behind += part.records[index:]
                break
            else:
                await self._failed(part, record, None, error)
            error = None
        if not part.stale:
            part.lane.put_back(behind)

    def _all_done(self, part: Part, records: Sequence[Record]) -> None:
        done, epoch = part.lane.tracker.done, part.epoch
        for record in records:
            done(record.offset, epoch)
        self._metrics.done(len(records))

    # One record by itself.

    async def _try_again(self, part: Part, waiting: Waiting) -> None:
        error = await self._counted(part, waiting.record, waiting.attempt)
        if part.stale:
            return
        if error is None:
            part.lane.settle(waiting)
            self._all_done(part, [waiting.record])
        elif verdict_of(error) == "away":
            self._away(error)
            waiting.due_at = self._now()
        else:
            await self._failed(part, waiting.record, waiting.attempt, error)

    async def _trial(self, part: Part, waiting: Waiting | None) -> None:
        """Its end is stored within its turn: else the next one's kill would have it counted, and tried, once more."""
        await (self._try_alone(part) if waiting is None else self._try_again(part, waiting))
        await self._commit()

    async def _try_alone(self, part: Part) -> None:
        (record,) = part.records
        now = self._now()
        error = await self._counted(part, record, Attempt(0, now, now, now, PROCESS_ENDED))
        if part.stale:
            return
        if error is None:
            self._all_done(part, [record])
        elif verdict_of(error) == "away":
            self._away(error)
            part.lane.put_back([record])
        else:
            await self._failed(part, record, None, error)

    async def _counted(self, part: Part, record: Record, previous: Attempt) -> Exception | None:
        """Try *record*, counted before it begins: one that kills the process must not be tried for ever."""
        now = self._now()
        place = (part.lane.partition, record.offset)
        first_at = previous.first_at if previous.attempts else now
        self._under_way[place] = previous
        await self._log.save_attempt(*place, Attempt(previous.attempts + 1, now, first_at, now, previous.error))
        error = await self._try_record(record)
        if place in self._under_way:
            del self._under_way[place]
            if error is not None and verdict_of(error) == "away":
                await self._log.save_attempt(*place, previous)
        return error

    async def _try_record(self, record: Record) -> Exception | None:
        try:
            delivered = Delivered(record, from_record(record))
        except Undecodable as error:
            return error
        return await self._try([delivered])

    async def _try(self, batch: Sequence[Delivered]) -> Exception | None:
        trace = Trace.parse(batch[0].event.traceparent) if len(batch) == 1 and batch[0].event.traceparent else None
        try:
            with trio.move_on_after(self._timeout) as scope:
                if trace is None:
                    await self._handler.handle(batch)
                else:
                    with use_trace(trace.child()):
                        await self._handler.handle(batch)
        except Exception as error:
            return root_error(error)
        if scope.cancelled_caught:
            return TimeoutError(f"{self._group}: the handler took longer than {self._timeout} s")
        self.outages = 0
        return None

    # Failing.

    def _away(self, error: Exception) -> None:
        """Wait, and charge nobody. Calls that fail together are one outage."""
        if trio.current_time() < self.away_until:
            return
        self.outages += 1
        self.away_until = trio.current_time() + self._policy.delay(self.outages, self._rng.random())
        log.warning("consumer.sink_away", group=self._group, error=repr(error))

    async def _failed(self, part: Part, record: Record, previous: Attempt | None, error: Exception) -> None:
        """Charge the record: its key waits for the next attempt, or for its burial."""
        if part.stale:
            return
        failure = failure_of(error)
        self._metrics.failed_attempt()
        outcome = after_failure(
            self._policy,
            previous,
            permanent=verdict_of(error) == "permanent",
            error=str(failure),
            now=self._now(),
            jitter=self._rng.random(),
        )
        attempt = outcome.attempt
        gave_up = isinstance(outcome, GiveUp)
        log.warning(
            "consumer.attempt_failed",
            group=self._group,
            record=record.id,
            attempt=attempt.attempts,
            error=str(failure),
            gave_up=gave_up,
        )
        waiting = Waiting(record, attempt, attempt.due_at, failure if gave_up else None)
        part.lane.wait(waiting)
        await self._log.save_attempt(part.lane.partition, record.offset, attempt)
        if gave_up:
            await self._bury(part, waiting, failure)

    async def _bury(self, part: Part, waiting: Waiting, failure: Failure) -> None:
        """Store the dead letter; only then is the record done. A log that refuses it: later again."""
        if part.stale:
            return
        record = waiting.record
        letter = dead_letter(record, group=self._group, failure=failure, attempt=waiting.attempt, service=self._service)
        try:
            await self._log.append(letter)
        except (ActorError, StoreUnavailable) as error:
            waiting.burials += 1
            waiting.due_at = self._now() + self._policy.delay(waiting.burials, self._rng.random())
            part.lane.wait(waiting)
            self._metrics.dead_letter_refused()
            problem = root_error(error)
            log.error("consumer.dead_letter_not_stored", group=self._group, record=record.id, error=repr(problem))
            return
        if not part.stale:
            part.lane.settle(waiting)
            part.lane.tracker.done(record.offset, part.epoch)
        self._metrics.dead()
        log.error("consumer.dead_letter", group=self._group, record=record.id, topic=letter.topic, error=str(failure))


def _decoded(call: Call) -> list[Delivered]:
    """The events of a call; [] when there is none in one of its records."""
    try:
        return [Delivered(record, from_record(record)) for part in call.parts for record in part.records]
    except Undecodable:
        return []
