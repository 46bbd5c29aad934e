"""One consumer group as an actor: at-least-once, in order per partition, dead letters after the last attempt.

It alternates between two steps and so needs no lock: a spawned task fetches (and waits, while there is
nothing to do) and tells the actor; the actor hands the batch over and commits. A stop therefore never waits
for a long poll, and lets the batch in hand finish.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import structlog
import trio

from actors.consumers import partitions
from actors.consumers.dead_letters import dead_letter
from actors.consumers.failure import Failure, failure_of, parse_failure
from actors.consumers.group_log import GroupLog
from actors.consumers.handler import DEFAULT_OPTIONS, ConsumerOptions, Handler
from actors.consumers.metrics import ConsumerMetrics
from actors.consumers.partitions import Blocked, Delivered, PartitionState
from actors.consumers.retry import DEFAULT_POLICY, GiveUp, RetryPolicy, after_failure
from actors.consumers.sink import root_error, verdict_of
from actors.metrics import Metrics
from actors.runtime import Actor, ActorError, ActorStopped
from backends.ports.cloudevents import Undecodable, from_record
from backends.ports.event_log import Attempt
from backends.ports.events import Partition, Record, retry_topic

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Fetched:
    """Told by a consumer to itself. `owner`: the incarnation that fetched; another one's records are stale."""

    owner: "Consumer"
    records: tuple[Record, ...]


class Consumer(Actor[Fetched]):
    """Consumes *topics* and their replays as *group*.

    Args:
        service: names this instance in the dead letters it makes.
        now: wall clock, Unix seconds: attempts and due times outlive the process.
    """

    def __init__(
        self,
        group: str,
        topics: Sequence[str],
        handler: Handler,
        *,
        metrics: Metrics,
        policy: RetryPolicy = DEFAULT_POLICY,
        options: ConsumerOptions = DEFAULT_OPTIONS,
        service: str = "weir",
        now: Callable[[], float] = time.time,
        rng: Random | None = None,
    ) -> None:
        self.group = group
        self._topics = tuple(name for topic in topics for name in (topic, retry_topic(topic, group)))
        self._handler = handler
        self._metrics = ConsumerMetrics(metrics, group)
        self._policy = policy
        self._options = options
        self._service = service
        self._now = now
        self._rng = rng or Random()
        self._states: dict[Partition, PartitionState] = {}
        self._refresh_at = 0.0
        self._outages = 0  # in a row: the sink or the log was away
        self._under_way: tuple[Partition, int, Attempt] | None = None
        """An attempt that was counted before it began, and what to restore if it is cut off."""

    async def on_start(self) -> None:
        # The log is asked by the task: a log that is away is no start failure.
        self._log = GroupLog(self.lookup("event_log"), self.group, self._options.ask_timeout)
        self.spawn(self._fetch)

    async def handle(self, message: Fetched) -> None:
        if message.owner is not self:
            return  # of an incarnation that is gone: what it had not committed is fetched again
        outages = self._outages
        for partition, state in self._states.items():
            if state.blocked is not None and state.blocked.due_at <= self._now():
                await self._work_off(partition, state, state.blocked)
        if self._outages <= outages:
            await self._process(message.records)
        await self._commit()
        self.spawn(self._fetch)

    async def on_stop(self) -> None:
        if self._under_way is not None:
            # Cut off: neither success nor failure, so the attempt is not counted.
            await self._log.save_attempt(*self._under_way)
        await self._commit()

    # Fetching: a task of its own, never beside `handle`.

    async def _fetch(self) -> None:
        if self._outages:
            await trio.sleep(self._policy.delay(self._outages, self._rng.random()))
        failures = 0
        while True:
            try:
                await self._refresh()
                records = await self._poll()
                break
            except ActorError as error:
                failures += 1
                log.warning("consumer.log_away", group=self.group, error=repr(root_error(error)))
                await trio.sleep(self._policy.delay(failures, self._rng.random()))
        try:
            await self.ref.tell(Fetched(self, tuple(records)))
        except ActorStopped:
            return  # stopping: they stay uncommitted

    async def _refresh(self) -> None:
        """Learn of partitions that are new, and where to go on in them."""
        if self._states and self.clock() < self._refresh_at:
            return
        known = await self._log.positions(self._topics)
        for partition in self._states.keys() - known.keys():
            del self._states[partition]
        for partition in sorted(known.keys() - self._states.keys()):
            attempts = await self._log.attempts(partition)
            self._states[partition] = PartitionState(known[partition], known[partition], attempts)
        self._refresh_at = self.clock() + self._options.refresh

    async def _poll(self) -> Sequence[Record]:
        """The next records, [] when a blocked record or a refresh is due first."""
        wait = min(self._options.max_wait, max(0.0, self._refresh_at - self.clock()))
        due = partitions.earliest_due(self._states)
        if due is not None:
            wait = min(wait, max(0.0, due - self._now()))
        positions = partitions.fetchable(self._states)
        if not positions:
            await trio.sleep(wait)
            return []
        return await self._log.fetch(positions, self._options.batch, wait)

    # Handling.

    async def _process(self, records: Sequence[Record]) -> None:
        batch, stops = partitions.plan(records, self._states)
        if batch and not await self._process_batch(batch):
            return
        for partition, stop in stops.items():
            state = self._states[partition]
            if state.blocked is not None:
                continue  # a record before it failed: it is met again later
            if stop.attempt is not None:
                self._resume(state, stop.record, stop.attempt)
            elif stop.error is not None:
                await self._failed(partition, state, stop.record, None, stop.error)

    async def _process_batch(self, batch: Sequence[Delivered]) -> bool:
        """Hand over all at once; where that fails, one by one. False: the sink is away, try all of it later."""
        error = await self._try(batch)
        if error is None:
            for record, _ in batch:
                self._done(record)
            return True
        if verdict_of(error) == "away":
            self._sink_away(error)
            return False
        for delivered in batch:
            record = delivered.record
            partition = (record.topic, record.partition)
            state = self._states[partition]
            if state.blocked is not None:
                continue
            if len(batch) > 1:
                error = await self._try([delivered])
            if error is None:
                self._done(record)
            elif verdict_of(error) == "away":
                self._sink_away(error)
                return False
            else:
                await self._failed(partition, state, record, None, error)
        return True

    async def _work_off(self, partition: Partition, state: PartitionState, blocked: Blocked) -> None:
        """A blocked record is due: try it again alone, or store it as the dead letter it has become."""
        if blocked.failure is not None:
            await self._bury(partition, state, blocked, blocked.failure)
            return
        record, previous = blocked.record, blocked.attempt
        now = self._now()
        # Counted before it begins: a record that kills the process must not be tried for ever.
        counted = Attempt(previous.attempts + 1, now, previous.first_at, now, previous.error)
        self._under_way = (partition, record.offset, previous)
        await self._log.save_attempt(partition, record.offset, counted)
        error = await self._try_record(record)
        if error is None:
            self._done(record)
        elif verdict_of(error) == "away":
            self._sink_away(error)
            await self._log.save_attempt(partition, record.offset, previous)
        else:
            await self._failed(partition, state, record, previous, error)
        self._under_way = None

    async def _try_record(self, record: Record) -> Exception | None:
        try:
            event = from_record(record)
        except Undecodable as error:
            return error
        return await self._try([Delivered(record, event)])

    async def _try(self, batch: Sequence[Delivered]) -> Exception | None:
        timeout = self._options.handler_timeout
        try:
            with trio.move_on_after(timeout) as scope:
                await self._handler.handle(batch)
        except Exception as error:
            return root_error(error)
        if scope.cancelled_caught:
            return TimeoutError(f"{self.group}: the handler took longer than {timeout} s")
        self._outages = 0
        return None

    def _done(self, record: Record) -> None:
        self._states[record.topic, record.partition].done(record.offset)
        self._metrics.done()

    def _sink_away(self, error: Exception) -> None:
        self._outages += 1
        log.warning("consumer.sink_away", group=self.group, error=repr(error))

    async def _failed(
        self, partition: Partition, state: PartitionState, record: Record, previous: Attempt | None, error: Exception
    ) -> None:
        """Charge the record: its partition waits for the next attempt, or for its burial."""
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
        log.warning(
            "consumer.attempt_failed",
            group=self.group,
            record=record.id,
            attempt=attempt.attempts,
            error=str(failure),
            gave_up=isinstance(outcome, GiveUp),
        )
        blocked = state.blocked = Blocked(record, attempt, attempt.due_at)
        await self._log.save_attempt(partition, record.offset, attempt)
        self._under_way = None
        if isinstance(outcome, GiveUp):
            blocked.failure = failure
            await self._bury(partition, state, blocked, failure)

    def _resume(self, state: PartitionState, record: Record, attempt: Attempt) -> None:
        """An earlier life tried *record*: go on counting, and wait out what is left of its delay."""
        # The wall clock may have been set back since; no wait is longer than the policy's longest.
        state.blocked = Blocked(record, attempt, min(attempt.due_at, self._now() + self._policy.cap))
        if attempt.attempts >= self._policy.attempts:
            state.blocked.failure = parse_failure(attempt.error)

    async def _bury(self, partition: Partition, state: PartitionState, blocked: Blocked, failure: Failure) -> None:
        """Store the dead letter; only then is the record done. A log that refuses it: later again."""
        record = blocked.record
        letter = dead_letter(record, group=self.group, failure=failure, attempt=blocked.attempt, service=self._service)
        try:
            await self._log.append(letter)
        except ActorError as error:
            blocked.burials += 1
            blocked.due_at = self._now() + self._policy.delay(blocked.burials, self._rng.random())
            log.error(
                "consumer.dead_letter_not_stored", group=self.group, record=record.id, error=repr(root_error(error))
            )
            return
        state.done(record.offset)
        self._metrics.dead()
        log.error("consumer.dead_letter", group=self.group, record=record.id, topic=letter.topic, error=str(failure))

    async def _commit(self) -> None:
        """Commit what is finished."""
        offsets = partitions.committable(self._states)
        if offsets and await self._log.commit(offsets):
            for partition, position in offsets.items():
                self._states[partition].committed = position
