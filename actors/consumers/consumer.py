"""One consumer group as an actor: at-least-once, in order per key, dead letters after the last attempt.

Three kinds of tasks, and no lock but one around commits. A task polls the log, always, and pauses partitions rather
than stop polling. Each call of the handler is a task (`work.py`). In between, the actor's own turn decides which calls
to make (`dispatch.py`) and commits: it is told `Go` whenever something has changed. Its answer is given when the
calls it started have ended, so a stop, which waits for answers, waits for what is in hand and starts nothing more.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf
from random import Random
from typing import Any

import structlog
import trio

from actors.consumers.dispatch import Call, Dispatcher
from actors.consumers.group_log import GroupLog
from actors.consumers.handler import DEFAULT_OPTIONS, ConsumerOptions, Handler
from actors.consumers.log_member import LogMember
from actors.consumers.metrics import ConsumerMetrics
from actors.consumers.partitions import Lane
from actors.consumers.retry import DEFAULT_POLICY, RetryPolicy
from actors.consumers.sink import root_error
from actors.consumers.trials import Trials
from actors.consumers.work import Work
from actors.metrics import Metrics
from actors.runtime import Actor, ActorError, Later
from backends.ports.entities import StoreUnavailable
from backends.ports.events import Partition, Record, retry_topic
from backends.ports.groups import Assignee, Commit, GroupMember, Start

log = structlog.get_logger(__name__)

Members = Callable[[str, Sequence[str]], GroupMember]
"""Makes a member of a group, the first argument, for topics."""


MARK_AHEAD = 0.1
"""Seconds of work that a mark reaches ahead."""


@dataclass(frozen=True, slots=True)
class Go:
    """Told by a consumer to itself: see what there is to do. `owner`: the incarnation that said so."""

    owner: "Consumer"


class Consumer(Actor[Go], Assignee):
    """Consumes *topics* and their replays as *group*.

    Args:
        members: where its membership of the group comes from; None: all partitions, of the `event_log` actor.
        service: names this instance in the dead letters it makes.
        now: wall clock, Unix seconds: attempts and due times outlive the process.
        trials: shared by all consumers of the process; None: one of its own.
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
        members: Members | None = None,
        trials: Trials | None = None,
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
        self._members = members
        self._trials = trials or Trials()
        self._dispatch = Dispatcher(options)
        self._told = False  # a Go is in the mailbox
        self._stopping = False
        self._hungry = trio.Event()
        self._drained: trio.Event | None = None
        self._committing = trio.Lock()
        self._committed_at = 0.0
        self._counted = False  # an attempt that was counted has ended: if that were forgotten, it would count again
        self._pace = 0.0  # records finished a second, lately
        self._paced_at = 0.0
        self._wake_at = inf
        self._alarm: trio.CancelScope | None = None
        self._calls: dict[Call, trio.CancelScope] = {}

    async def on_start(self) -> None:
        # The log is asked by tasks: one that is away is no start failure.
        options = self._options
        event_log = self.lookup("event_log")
        self._log = GroupLog(event_log, self.group, options.ask_timeout)
        self._work = Work(
            self.group,
            self._handler,
            self._log,
            metrics=self._metrics,
            policy=self._policy,
            timeout=options.handler_timeout,
            service=self._service,
            now=self._now,
            rng=self._rng,
            trials=self._trials,
            commit=self._commit,
        )
        self._member: GroupMember = (
            self._members(self.group, self._topics)
            if self._members is not None
            else LogMember(
                event_log, self.group, self._topics, refresh=options.refresh, ask_timeout=options.ask_timeout
            )
        )
        self._metrics.watch(
            in_flight=self._dispatch.in_flight,
            oldest=self._oldest,
            waiting=lambda: sum(1 for lane in self._lanes.values() for _ in lane.waiting()),
            paused=lambda: sum(lane.paused for lane in self._lanes.values()),
        )
        self.spawn(self._poll)
        self.spawn(self._watch_the_clock)

    async def handle(self, message: Go) -> Later | None:
        if message.owner is not self:
            return None  # of an incarnation that is gone: what it had not committed is fetched again
        self._told = False
        calls = self._dispatch.take(self._now()) if self.clock() >= self._work.away_until else []
        await self._commit_if_due()
        self._pause_and_resume()
        self._set_alarm()
        if not calls:
            return None
        later, open = self.later(), len(calls)

        async def run(call: Call) -> None:
            nonlocal open
            await self._run(call)
            open -= 1
            if not open:
                later.answer(None)

        for call in calls:
            self.spawn(run, call)
        return later

    async def on_stop(self) -> None:
        await self._work.restore()
        await self._commit(final=True)
        try:
            await self._member.leave()
        except StoreUnavailable as error:
            log.warning("consumer.not_left", group=self.group, error=str(error))

    def describe(self) -> dict[str, Any]:
        return {
            "group": self.group,
            "running": self._dispatch.running,
            "in_flight": self._dispatch.in_flight(),
            "oldest_unfinished": self._oldest(),
            "outages": self._work.outages if hasattr(self, "_work") else 0,
            "partitions": [
                {
                    "topic": lane.partition[0],
                    "partition": lane.partition[1],
                    "committed": lane.tracker.committed.offset,
                    "position": lane.tracker.position,
                    "in_flight": lane.tracker.unfinished,
                    "paused": lane.paused,
                    "waiting": [
                        {
                            "offset": waiting.record.offset,
                            "attempts": waiting.attempt.attempts,
                            "due_at": waiting.due_at,
                            "error": waiting.attempt.error,
                            "dead": waiting.failure is not None,
                        }
                        for _, waiting in zip(range(20), lane.waiting(), strict=False)
                    ],
                }
                for _, lane in sorted(self._lanes.items())
            ],
        }

    # Polling: a task of its own, from the start to the end.

    async def _poll(self) -> None:
        failures = 0
        joined = False
        while True:
            try:
                if not joined:
                    await self._member.join(self)
                    joined = True
                records = await self._member.poll(self._dispatch.room(), self._options.max_wait)
                self._add(records)
                await self._load_attempts()
                failures = 0
            except (ActorError, StoreUnavailable) as error:
                failures += 1
                log.warning("consumer.log_away", group=self.group, error=repr(root_error(error)))
                await trio.sleep(self._policy.delay(failures, self._rng.random()))
            self._pause_and_resume()
            self._go()
            if not self._dispatch.hungry():
                # There is enough; but a member that polls no more is thrown out of its group.
                self._hungry = trio.Event()
                with trio.move_on_after(self._options.max_wait):
                    await self._hungry.wait()

    def _add(self, records: Sequence[Record]) -> None:
        at = self.clock()
        for partition, run in groupby(records, key=lambda record: (record.topic, record.partition)):
            lane = self._lanes.get(partition)
            if lane is not None and not lane.closing:
                lane.add(list(run), at)

    async def _load_attempts(self) -> None:
        """Learn what earlier lives have tried in partitions that are new. Raises ActorError, StoreUnavailable."""
        for partition, lane in list(self._lanes.items()):
            if lane.attempts is None:
                found = await self._log.attempts(partition)
                lane.attempts = {offset: attempt for offset, attempt in found.items() if attempt.attempts}

    def _pause_and_resume(self) -> None:
        changes = self._dispatch.pauses()
        if changes.pause:
            self._member.pause(changes.pause)
        if changes.resume:
            self._member.resume(changes.resume)
            self._hungry.set()

    # Calls of the handler: a task each.

    async def _run(self, call: Call) -> None:
        with trio.CancelScope() as scope:
            self._calls[call] = scope
            await self._work.run(call)
        del self._calls[call]
        self._keep_pace(call.size)
        self._dispatch.finished(call)
        self._counted = self._counted or call.alone or call.waiting is not None
        if self._drained is not None:
            self._drained.set()
        if self._dispatch.hungry():
            self._hungry.set()
        self._go()

    def _keep_pace(self, records: int) -> None:
        """An average that forgets within seconds."""
        elapsed = self.clock() - self._paced_at
        self._paced_at += elapsed
        self._pace = self._pace * max(0.0, 1.0 - elapsed) + records

    def _go(self) -> None:
        if not self._told and not self._stopping:
            self._told = self.ref.try_tell(Go(self))
            self._stopping = not self._told

    # The clock: records that fall due, outages that end, commits.

    async def _watch_the_clock(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._wake_at) as self._alarm:
                await trio.sleep_forever()
            self._wake_at = inf  # the next Go sets it
            self._go()

    def _set_alarm(self) -> None:
        due = self._dispatch.next_due()
        at = inf if due is None else self.clock() + max(0.0, due - self._now())
        if self._dispatch.running >= self._options.concurrency:
            at = inf  # whoever ends looks again
        if self.clock() < self._work.away_until:
            at = self._work.away_until
        if self._dispatch.running:
            at = min(at, max(self._committed_at + self._options.commit_interval, self.clock()))
        self._wake_at = at
        if self._alarm is not None:
            self._alarm.deadline = at

    # Committing.

    async def _commit_if_due(self) -> None:
        unmarked = any(lane.calls and lane.handed > lane.tracker.mark for lane in self._lanes.values())
        due = self.clock() >= self._committed_at + self._options.commit_interval
        if unmarked or due or self._counted or not self._dispatch.running:
            self._counted = False
            await self._commit()

    async def _commit(self, *, only: Collection[Partition] | None = None, final: bool = False) -> None:
        """Commit what is finished, and what may be in hand from now on."""
        async with self._committing:
            ahead = self._reach()
            commits: dict[Partition, Commit] = {}
            marks: dict[Partition, int] = {}
            for partition, lane in self._lanes.items():
                if only is None or partition in only:
                    mark = self._mark(lane, ahead, final)
                    commit = lane.tracker.commit(mark)
                    if commit != lane.tracker.committed:
                        commits[partition] = commit
                        marks[partition] = mark
            self._committed_at = self.clock()
            if not commits:
                return
            try:
                await self._member.commit(commits)
            except StoreUnavailable as error:
                log.warning("consumer.not_committed", group=self.group, error=str(error))
                return
            for partition, commit in commits.items():
                if partition in self._lanes:
                    self._lanes[partition].tracker.stored(commit, marks[partition])

    def _mark(self, lane: Lane, ahead: int, final: bool) -> int:
        """Below it, records of *lane* may be in hand until the next commit."""
        if final:
            return lane.tracker.suspect_below if lane.suspects() else 0
        return lane.tracker.mark if lane.handed <= lane.tracker.mark else lane.handed + ahead

    def _reach(self) -> int:
        """How far marks reach ahead, in records, so that few commits are made for the mark alone.

        After a kill so many records are tried one by one; they should be what was done in a moment.
        """
        done = self._pace * MARK_AHEAD
        return int(min(self._options.fetch, max(2 * self._options.concurrency, done)))

    # Called by the member, within its `poll` (or `join`).

    async def assigned(self, starts: Mapping[Partition, Start]) -> None:
        await trio.lowlevel.checkpoint()
        for partition, start in starts.items():
            lane = self._lanes[partition] = Lane(
                partition,
                start,
                by_key=self._options.order == "key",
                exclusive=self._dispatch.exclusive,
                resume=self._work.resume,
            )
            if lane.tracker.unreadable:
                log.warning("consumer.metadata_unreadable", group=self.group, partition=partition)

    async def revoked(self, partitions: Collection[Partition]) -> None:
        """Let what is in hand of them end, within the budget; commit; only then they are stale.

        What waits for another attempt waits no more: its attempts are stored.
        """
        lanes = [self._lanes[partition] for partition in partitions if partition in self._lanes]
        for lane in lanes:
            lane.closing = True
        with trio.move_on_after(self._options.drain):
            while any(lane.calls for lane in lanes):
                self._drained = trio.Event()
                await self._drained.wait()
        for lane in lanes:
            if lane.calls:
                self._cut_off(lane)
                await self._work.restore(lane.partition)
        await self._commit(only=[lane.partition for lane in lanes], final=True)
        self._drop(lanes)

    async def lost(self, partitions: Collection[Partition]) -> None:
        await trio.lowlevel.checkpoint()
        lanes = [self._lanes[partition] for partition in partitions if partition in self._lanes]
        for lane in lanes:
            lane.closing = True
            self._work.forget(lane.partition)
            self._cut_off(lane)
        self._drop(lanes)

    def _cut_off(self, lane: Lane) -> None:
        """Cancel the calls that have records of *lane* alone: neither done nor failed."""
        for call, scope in self._calls.items():
            if all(part.lane is lane or part.lane.closing for part in call.parts):
                scope.cancel()

    def _drop(self, lanes: Sequence[Lane]) -> None:
        for lane in lanes:
            lane.tracker.give_up()
            if self._lanes.get(lane.partition) is lane:
                del self._lanes[lane.partition]

    @property
    def _lanes(self) -> dict[Partition, Lane]:
        return self._dispatch.lanes

    def _oldest(self) -> float:
        """Seconds since the oldest unfinished record was taken from the log."""
        oldest = (lane.tracker.oldest() for lane in self._lanes.values())
        return max((self.clock() - at for at in oldest if at is not None), default=0.0)
