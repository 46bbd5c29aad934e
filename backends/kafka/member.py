"""A member of a consumer group on Kafka.

aiokafka works in tasks of its own and calls back in the midst of a rebalance; the consumer wants to hear of that from
within its own `poll`. So what happens is queued here, `poll` tells it, and a rebalance waits for that within a budget.
Records are read ahead by a task that is never cancelled, because a cancelled `getmany` breaks its consumer.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
import trio
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
    OffsetMetadataTooLargeError,
)
from aiokafka.structs import OffsetAndMetadata

from backends.asyncio_bridge import crossing
from backends.kafka import aio
from backends.kafka.buffer import Buffer
from backends.kafka.connection import Connection
from backends.kafka.errors import ConsumerStuck, UnusableKafka, engine_errors, translated
from backends.kafka.reader import to_record
from backends.kafka.watchdog import Progress
from backends.ports import groups as port
from backends.ports.entities import StoreUnavailable
from backends.ports.events import Offsets, Partition, Record
from backends.ports.groups import Assignee, Commit, Start

log = structlog.get_logger(__name__)

_FETCH = 500
_FETCH_WAIT_MS = 200
_PAUSE_S = 0.2
_STOP_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds.

    `session`: a member that is silent for so long is out of the group. `rebalance`: how long the others wait for a
    member that is draining; `revoke`, below it, is what the consumer gets for that. `poll`: without a call of `poll`
    for so long, the member leaves. `stuck`: without progress for so long, it is given up; looked at every `check`.
    """

    session: float = 10.0
    heartbeat: float = 3.0
    rebalance: float = 30.0
    revoke: float = 20.0
    poll: float = 300.0
    stuck: float = 60.0
    check: float = 5.0
    request: float = 5.0


@dataclass(slots=True)
class _Assigned:
    starts: Mapping[Partition, Start]


@dataclass(slots=True)
class _Revoked:
    """`told`: set when the consumer has drained. `expired`: it had its time, and they are somebody else's."""

    partitions: frozenset[Partition]
    deadline: float
    told: "asyncio.Future[None]"
    expired: bool = False


@dataclass(slots=True)
class _Lost:
    partitions: frozenset[Partition]


_Change = _Assigned | _Revoked | _Lost


@dataclass(slots=True)
class _Running:
    """What lives from `join` to `leave`."""

    consumer: AIOKafkaConsumer
    assignee: Assignee
    loop: asyncio.AbstractEventLoop
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)
    closing: bool = False


class Member(port.GroupMember):
    """aiokafka's group protocol is eager: every rebalance revokes all partitions, and gives some back.

    Raises `ConsumerStuck` from `poll` when only a new member can help, `UnusableKafka` when a right is missing.

    Args:
        prepare: makes sure that the topics exist.
        committed: told what was committed.
    """

    def __init__(
        self,
        connection: Connection,
        group: str,
        topics: Sequence[str],
        *,
        prepare: Callable[[Sequence[str]], Awaitable[None]],
        committed: Callable[[str, Offsets], Awaitable[None]],
        timing: Timing | None = None,
        buffer: Buffer | None = None,
    ) -> None:
        self._connection = connection
        self._group = group
        self._topics = tuple(topics)
        self._prepare = prepare
        self._committed = committed
        self._timing = timing or Timing()
        self._buffer = buffer or Buffer()
        self._running: _Running | None = None
        self._changes: deque[_Change] = deque()
        self._owned: set[Partition] = set()
        """As the group has it. `_told` lags behind: what the consumer knows of."""
        self._told: set[Partition] = set()
        self._paused: set[Partition] = set()
        self._seeking: dict[Partition, int] = {}
        self._epoch = 0
        self._failure: Exception | None = None
        self._news = trio.Event()
        self._woken = False
        self._polling = False
        self._polled_at = 0.0
        self._progress = Progress(self._timing.stuck, self._timing.rebalance + self._timing.stuck)

    # The consumer's side.

    async def join(self, assignee: Assignee) -> None:
        await self._prepare(self._topics)
        self._polled_at = time.monotonic()
        await crossing(self._start, assignee)

    async def poll(self, limit: int, max_wait: float) -> list[Record]:
        deadline = trio.current_time() + max_wait
        await trio.lowlevel.checkpoint()
        self._polling = True
        try:
            return await self._poll(limit, deadline)
        finally:
            self._polling = False
            self._polled_at = time.monotonic()

    def wake(self) -> None:
        self._woken = True
        self._news.set()

    def pause(self, partitions: Collection[Partition]) -> None:
        """Their records are held back at once; Kafka is not asked for more once enough of them are here."""
        self._paused |= set(partitions)

    def resume(self, partitions: Collection[Partition]) -> None:
        self._paused -= set(partitions)
        self._news.set()

    def seek(self, partition: Partition, offset: int) -> None:
        self._buffer.clear([partition])
        self._seeking[partition] = offset  # until then, what arrives is of the old position
        self._run.loop.call_soon(self._apply_seek, partition)

    async def commit(self, commits: Mapping[Partition, Commit]) -> None:
        """A commit that came too late (the group has rebalanced) is dropped: its records are delivered again."""
        mine = {partition: commit for partition, commit in commits.items() if partition in self._owned}
        if not mine:
            await trio.lowlevel.checkpoint()
            return
        if await crossing(self._commit, mine):
            await self._committed(self._group, {partition: commit.offset for partition, commit in mine.items()})

    async def leave(self) -> None:
        """Within a few seconds, whatever the brokers do."""
        if self._running is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * _STOP_S + 2.0):
                await crossing(self._stop)

    @property
    def closed(self) -> bool:
        """Whether it holds nothing: before `join`, and after `leave`."""
        return self._running is None

    @property
    def _run(self) -> _Running:
        if self._running is None:
            raise RuntimeError(f"the member of group {self._group} has not joined")
        return self._running

    async def _poll(self, limit: int, deadline: float) -> list[Record]:
        changed = False
        while True:
            self._raise_failure()
            while self._changes:
                changed = True
                await self._tell(self._changes[0])
            records = self._buffer.take(limit, self._told - self._paused)
            if records or changed or self._woken:
                self._woken = False
                if records:
                    self._run.loop.call_soon(self._match_pauses)
                return records
            self._news = trio.Event()
            with trio.move_on_at(deadline) as scope:
                await self._news.wait()
            if scope.cancelled_caught:
                return []

    async def _tell(self, change: _Change) -> None:
        """Cancelled: it is told again by the next poll."""
        assignee = self._run.assignee
        try:
            match change:
                case _Assigned(starts):
                    self._told |= starts.keys()
                    await assignee.assigned(starts)
                case _Revoked(partitions, deadline) if not change.expired:
                    with trio.move_on_at(deadline):
                        await assignee.revoked(partitions)
                    self._forget(partitions)
                case _Revoked(partitions) | _Lost(partitions):
                    self._forget(partitions)
                    await assignee.lost(partitions)
        except trio.Cancelled:
            raise
        except BaseException:
            self._done(change)
            raise
        self._done(change)

    def _done(self, change: _Change) -> None:
        self._changes.popleft()
        if isinstance(change, _Revoked) and not change.told.done():
            change.told.set_result(None)

    def _forget(self, partitions: Collection[Partition]) -> None:
        self._told -= set(partitions)
        self._paused -= set(partitions)

    def _raise_failure(self) -> None:
        failure = self._failure
        if failure is not None:
            if not isinstance(failure, ConsumerStuck):
                self._failure = None
            raise failure

    def _fail(self, failure: Exception) -> None:
        if not isinstance(self._failure, ConsumerStuck):
            self._failure = failure
        self._news.set()

    # aiokafka's side: all below runs in asyncio.

    async def _start(self, assignee: Assignee) -> None:
        timing = self._timing
        consumer = AIOKafkaConsumer(
            **self._connection.options(),
            group_id=self._group,
            group_instance_id=self._connection.instance_id or None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=int(timing.session * 1000),
            heartbeat_interval_ms=int(timing.heartbeat * 1000),
            rebalance_timeout_ms=int(timing.rebalance * 1000),
            max_poll_interval_ms=int(timing.poll * 1000),
        )
        with engine_errors(f"join group {self._group}"):
            try:
                async with asyncio.timeout(timing.request):
                    await consumer.start()
            except BaseException:
                await aio.stop_consumer(consumer, 0.0)
                raise
        self._running = run = _Running(consumer, assignee, asyncio.get_running_loop())
        self._progress.rejoining(time.monotonic())
        consumer.subscribe(self._topics, listener=_Listener(self._on_revoked, self._on_assigned))
        run.tasks = [asyncio.create_task(self._read_ahead(run)), asyncio.create_task(self._watch(run))]
        for task in run.tasks:
            task.add_done_callback(self._ended)

    async def _stop(self) -> None:
        run = self._run
        run.closing = True
        for change in self._changes:
            if isinstance(change, _Revoked) and not change.told.done():
                change.told.set_result(None)
        reading, watching = run.tasks
        watching.cancel()
        await asyncio.wait([reading], timeout=_STOP_S)
        await aio.stop_consumer(run.consumer, _STOP_S)
        await asyncio.wait([reading, watching], timeout=1.0)
        self._running = None
        self._owned.clear()
        self._told.clear()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """Neither of our tasks ends before `leave`, unless something in aiokafka did."""
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if self._running is not None and not self._running.closing:
            self._fail(ConsumerStuck(f"group {self._group}: the client has ended: {error!r}"))

    async def _read_ahead(self, run: _Running) -> None:
        """Poll for as long as the consumer does, also when everything is paused: it keeps the membership."""
        while not run.closing:
            if not self._polling and time.monotonic() - self._polled_at > self._timing.poll:
                await asyncio.sleep(_PAUSE_S)  # aiokafka leaves the group by itself when nothing polls
                continue
            self._match_pauses()
            try:
                fetched = await run.consumer.getmany(timeout_ms=_FETCH_WAIT_MS, max_records=_FETCH)
            except ConsumerStoppedError:
                return
            except Exception as error:
                self._fail(self._judged(error))
                await asyncio.sleep(_PAUSE_S)
            else:
                for tp, records in fetched.items():
                    partition = (tp.topic, tp.partition)
                    if partition not in self._seeking:
                        self._buffer.add(partition, map(to_record, records))
                if fetched:
                    self._news.set()

    def _judged(self, error: Exception) -> Exception:
        if not isinstance(error, KafkaError | OSError) or aio.ended(self._run.consumer):
            return ConsumerStuck(f"group {self._group}: the client has ended: {error!r}")
        return translated(error, f"read for group {self._group}")

    def _match_pauses(self) -> None:
        """Fetch no more for partitions whose buffer is full, until it is half empty."""
        run = self._running
        if run is None or run.closing:
            return
        paused = run.consumer.paused()
        for tp in run.consumer.assignment():
            full = self._buffer.full((tp.topic, tp.partition))
            if full and tp not in paused:
                run.consumer.pause(tp)
            elif not full and tp in paused:
                run.consumer.resume(tp)

    def _apply_seek(self, partition: Partition) -> None:
        offset = self._seeking.pop(partition, None)
        if offset is None or self._running is None:
            return
        try:
            self._running.consumer.seek(TopicPartition(*partition), offset)
        except IllegalStateError:
            pass  # it was revoked in the meantime

    async def _commit(self, commits: Mapping[Partition, Commit]) -> bool:
        consumer = self._run.consumer
        assigned = consumer.assignment()
        offsets = {
            TopicPartition(*partition): OffsetAndMetadata(commit.offset, commit.metadata)
            for partition, commit in commits.items()
            if partition in assigned
        }
        if not offsets:
            return False
        with engine_errors(f"commit for group {self._group}"):
            try:
                async with asyncio.timeout(self._timing.request):
                    await _commit_offsets(consumer, offsets, self._group)
            except (CommitFailedError, IllegalStateError) as error:
                log.warning("kafka.commit_dropped", group=self._group, partitions=len(offsets), reason=repr(error))
                return False
        return True

    async def _on_revoked(self, revoked: Collection[Any]) -> None:
        self._progress.rejoining(time.monotonic())
        partitions = frozenset((tp.topic, tp.partition) for tp in revoked) & self._owned
        self._buffer.clear(partitions)
        run = self._run
        if not partitions or run.closing:
            return
        if aio.generation(run.consumer) < 0:
            self._changes.append(_Lost(partitions))
        else:
            revocation = _Revoked(partitions, trio.current_time() + self._timing.revoke, run.loop.create_future())
            self._changes.append(revocation)
            self._news.set()
            await asyncio.wait([revocation.told], timeout=self._timing.revoke)
            if not revocation.told.done():
                revocation.expired = True
                log.warning("kafka.revoked_undrained", group=self._group, partitions=len(partitions))
        self._owned -= partitions
        self._news.set()

    async def _on_assigned(self, assigned: Collection[Any]) -> None:
        self._progress.joined()
        self._epoch += 1
        try:
            starts = await self._starts(sorted(assigned))
        except (StoreUnavailable, UnusableKafka) as error:
            # aiokafka would swallow it, and the consumer never hear of its partitions.
            self._fail(ConsumerStuck(f"group {self._group}: the committed offsets could not be read: {error}"))
            return
        self._owned = set(starts)
        if starts:
            self._changes.append(_Assigned(starts))
            self._news.set()

    async def _starts(self, assigned: Sequence[Any]) -> dict[Partition, Start]:
        consumer = self._run.consumer
        if not assigned:
            return {}
        with engine_errors(f"read the committed offsets of group {self._group}"):
            async with asyncio.timeout(self._timing.request):
                committed = await aio.committed(consumer, assigned)
                fresh = [tp for tp in assigned if tp not in committed]
                first = await consumer.beginning_offsets(fresh)
        starts = {}
        for tp in assigned:
            at = committed.get(tp) or OffsetAndMetadata(first[tp], "")
            starts[tp.topic, tp.partition] = Start(at.offset, self._epoch, at.metadata)
        return starts

    async def _watch(self, run: _Running) -> None:
        """Find out that the brokers are away, or that the client is stuck though they are not."""
        while True:
            await asyncio.sleep(self._timing.check)
            try:
                with engine_errors(f"answer group {self._group}"):
                    async with asyncio.timeout(self._timing.request):
                        behind = await self._behind(run.consumer)
            except (StoreUnavailable, UnusableKafka) as error:
                self._progress.away(time.monotonic())
                self._fail(error)
                continue
            stuck = self._progress.look(behind, time.monotonic())
            if stuck:
                log.error("kafka.consumer_stuck", group=self._group, reason=stuck)
                self._fail(ConsumerStuck(f"group {self._group}: {stuck}"))

    async def _behind(self, consumer: AIOKafkaConsumer) -> dict[Partition, int]:
        """The positions of the partitions that have more to read, and are read from."""
        reading = consumer.assignment() - consumer.paused()
        if not reading:
            await consumer.topics()
            return {}
        ends = await consumer.end_offsets(list(reading))
        behind = {}
        for tp in reading & consumer.assignment():
            position = await consumer.position(tp)
            if position < ends[tp]:
                behind[tp.topic, tp.partition] = position
        return behind


async def _commit_offsets(
    consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, OffsetAndMetadata], group: str
) -> None:
    """Where the broker takes less metadata than is usual, the offsets count more than what is done above them."""
    try:
        await consumer.commit(offsets)
    except OffsetMetadataTooLargeError:
        log.warning("kafka.metadata_too_large", group=group, most=max(len(at.metadata) for at in offsets.values()))
        await consumer.commit({tp: OffsetAndMetadata(at.offset, "") for tp, at in offsets.items()})


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka's callbacks, whose exceptions it swallows."""

    def __init__(
        self,
        revoked: Callable[[Collection[Any]], Awaitable[None]],
        assigned: Callable[[Collection[Any]], Awaitable[None]],
    ) -> None:
        self._revoked, self._assigned = revoked, assigned

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        await self._revoked(revoked)

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        await self._assigned(assigned)
