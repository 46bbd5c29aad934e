"""The `event_log` actor: the one way to the log, whichever adapter is behind it.

Appends of one batch become one append of the port. A `Fetch` that finds nothing waits in a task of its
own and is woken by appends to its topics, so nobody polls and no append waits for a reader.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, assert_never

import structlog
import trio

from actors.event_log.messages import (
    Append,
    Appended,
    Attempts,
    Commit,
    DropRecords,
    Ends,
    Fetch,
    Groups,
    Lag,
    Positions,
    Progress,
    ReadRecord,
    SaveAttempt,
    Topics,
)
from actors.event_log.waiters import Waiter, Waiters
from actors.metrics import Metrics
from actors.runtime import Actor, Later, Reject
from backends.ports import groups
from backends.ports.entities import StoreUnavailable
from backends.ports.event_log import EventLog, Topic
from backends.ports.events import NewRecord, Partition, Record

log = structlog.get_logger(__name__)

Query = (
    Fetch
    | Positions
    | Progress
    | Ends
    | Commit
    | Attempts
    | SaveAttempt
    | ReadRecord
    | DropRecords
    | Topics
    | Groups
    | Lag
)
Message = Append | Appended | Query

_FIRST_RETRY_S = 0.5
_MAX_RETRY_S = 30.0


class EventLogActor(Actor[Message]):
    """Answers the messages of `messages.py`. *topics* are made sure of at the start (later, if the engine is away).

    `Reject.error` is `StoreUnavailable`, or the exception of an operation that failed: it concerns its asker
    alone. Appends are at-least-once for an asker that tries again after an unknown outcome.
    """

    def __init__(self, event_log: EventLog, topics: Sequence[Topic], metrics: Metrics) -> None:
        self._log = event_log
        self._topics = tuple(topics)
        self._waiters = Waiters()
        self._appended = metrics.counter(
            "weir_event_log_appended_total", "Records appended through this actor, by topic.", ("topic",)
        )

    async def on_start(self) -> None:
        try:
            await self._log.ensure_topics(self._topics)
        except StoreUnavailable as error:
            log.warning("the event log is away; its topics are made sure of later", error=repr(error))
            self.spawn(self._ensure_topics)

    async def _ensure_topics(self) -> None:
        delay = _FIRST_RETRY_S
        while True:
            await trio.sleep(delay)
            try:
                await self._log.ensure_topics(self._topics)
            except StoreUnavailable:
                delay = min(_MAX_RETRY_S, delay * 2)
            else:
                return

    async def handle_batch(self, messages: list[Message]) -> list[Any]:
        appends = [message for message in messages if isinstance(message, Append)]
        appended = iter(await self._append(appends) if appends else ())
        results: list[Any] = []
        for message in messages:
            if isinstance(message, Append):
                results.append(next(appended))
            elif isinstance(message, Appended):
                self._waiters.touch(message.topics)
                results.append(None)
            elif isinstance(message, Fetch) and message.max_wait > 0:
                later = self.later()
                self.spawn(self._long_poll, message, later)
                results.append(later)
            else:
                results.append(await guarded(self._query, message))
        return results

    # Appending.

    async def _append(self, appends: Sequence[Append]) -> list[Any]:
        """One append of the port for all; durable if one of them is to be."""
        together = [record for append in appends for record in append.records]
        durable = any(append.durable for append in appends)
        placed = await guarded(self._append_records, together, durable)
        if isinstance(placed, Reject):
            if len(appends) == 1 or isinstance(placed.error, StoreUnavailable):
                return [placed] * len(appends)
            # Nothing of it is in the log (an append is all or nothing): find out whose record it was.
            return [await guarded(self._append_records, append.records, append.durable) for append in appends]
        results = []
        start = 0
        for append in appends:
            end = start + len(append.records)
            results.append(placed[start:end])
            start = end
        return results

    async def _append_records(self, records: Sequence[NewRecord], durable: bool) -> list[tuple[int, int]]:
        placed = await self._log.append(records, durable=durable)
        for record in records:
            self._appended.inc(record.topic)
        self._waiters.touch({record.topic for record in records})
        return placed

    # Reading.

    async def _long_poll(self, fetch: Fetch, later: Later) -> None:
        waiter = fetch.waiter or Waiter(frozenset(topic for topic, _ in fetch.positions))
        self._waiters.add(waiter)  # before the first look, so that no append falls between the two
        try:
            result = await guarded(self._poll, fetch, waiter)
        finally:
            self._waiters.remove(waiter)
        if isinstance(result, Reject):
            later.fail(result.error)
        else:
            later.answer(result)

    async def _poll(self, fetch: Fetch, waiter: Waiter) -> list[Record]:
        deadline = self.clock() + fetch.max_wait
        # The wait alone is cut short, never a fetch: not every engine takes that well.
        while not (records := await self._log.fetch(fetch.positions, fetch.limit)):
            with trio.move_on_at(deadline) as scope:
                await waiter.wait()
            if scope.cancelled_caught or waiter.ended:
                break
        return records

    async def _query(self, message: Query) -> Any:
        event_log = self._log
        match message:
            case Fetch(positions=positions, limit=limit):
                return await event_log.fetch(positions, limit)
            case Positions(group=group, topic=topic):
                return {**await event_log.start_offsets(topic), **await event_log.committed(group, topic)}
            case Progress(group=group, topics=topics):
                return await self._progress(group, topics)
            case Ends(topic=topic):
                return await event_log.end_offsets(topic)
            case Commit(group=group, offsets=offsets, metadata=metadata):
                return await event_log.commit(group, offsets, metadata)
            case Attempts(group=group, partition=partition):
                return await event_log.attempts(group, partition)
            case SaveAttempt(group=group, partition=partition, offset=offset, attempt=attempt):
                return await event_log.save_attempt(group, partition, offset, attempt)
            case ReadRecord(partition=partition, offset=offset):
                return await event_log.read(partition, offset)
            case DropRecords(partition=partition, offsets=dropped):
                return await event_log.drop(partition, dropped)
            case Topics():
                return await event_log.topics()
            case Groups():
                return await event_log.groups()
            case Lag():
                return await self._lag()
            case _:
                assert_never(message)

    async def _progress(self, group: str, topics: Sequence[str]) -> dict[Partition, groups.Commit]:
        found: dict[Partition, groups.Commit] = {}
        for topic in topics:
            starts = await self._log.start_offsets(topic)
            found |= {partition: groups.Commit(offset) for partition, offset in starts.items()}
            found |= await self._log.progress(group, topic)
        return found

    async def _lag(self) -> dict[tuple[str, str, int], int]:
        lag = {}
        for group, topics in (await self._log.groups()).items():
            for topic in topics:
                committed = await self._log.committed(group, topic)
                starts = await self._log.start_offsets(topic)
                for partition, end in (await self._log.end_offsets(topic)).items():
                    lag[group, *partition] = behind(partition, end, committed, starts)
        return lag


def behind(partition: Partition, end: int, committed: dict[Partition, int], starts: dict[Partition, int]) -> int:
    """Records a group has not done yet. Those that expired before it came to them are no longer behind it."""
    start = starts.get(partition, 0)
    return max(0, end - max(start, committed.get(partition, start)))


async def guarded(operation: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """The operation's result, or a `Reject` with its exception: one asker's trouble. AssertionError crashes."""
    try:
        return await operation(*args)
    except StoreUnavailable as error:
        return Reject(error)
    except AssertionError:
        raise  # a broken invariant of ours (or a message nobody knows): start afresh
    except Exception as error:
        log.exception("an operation on the event log failed", operation=operation.__name__)
        return Reject(error)
