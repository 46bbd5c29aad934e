"""A group's member on a log that gives it every partition for good: the embedded one, behind the `event_log` actor."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import trio

from actors.consumers.sink import root_error
from actors.event_log import messages as log
from actors.event_log.waiters import Waiter
from actors.runtime import ActorError, Ref
from backends.ports.entities import StoreUnavailable
from backends.ports.events import Partition, Record
from backends.ports.groups import Assignee, Commit, GroupMember, Start


class LogMember(GroupMember):
    """Owns all partitions of *topics*, those included that come later.

    Args:
        refresh: seconds until new partitions are looked for (replays make their topics on demand).
        ask_timeout: seconds for an answer of the log, beyond what a poll may wait.
    """

    def __init__(
        self, event_log: Ref[Any], group: str, topics: Sequence[str], *, refresh: float = 2.0, ask_timeout: float = 10.0
    ) -> None:
        self._ref = event_log
        self._group = group
        self._topics = tuple(topics)
        self._refresh = refresh
        self._timeout = ask_timeout
        self._assignee: Assignee | None = None
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._waiter: Waiter | None = None
        self._woken = trio.Event()
        self._refresh_at = -1.0

    async def join(self, assignee: Assignee) -> None:
        """Partitions come with the first `poll`: a log that is away is no failure of joining."""
        await trio.lowlevel.checkpoint()
        self._assignee = assignee
        self._refresh_at = -1.0

    async def poll(self, limit: int, max_wait: float) -> list[Record]:
        if await self._look_for_partitions():
            return []  # the assignment changed
        wait = min(max_wait, max(0.0, self._refresh_at - trio.current_time()))
        fetched = {at: offset for at, offset in self._positions.items() if at not in self._paused}
        if self._woken.is_set():
            wait = 0.0
        self._woken = trio.Event()
        if not fetched or limit <= 0:
            with trio.move_on_after(wait):
                await self._woken.wait()
            return []
        records = await self._fetch(fetched, limit, wait)
        for record in records:
            self._positions[record.topic, record.partition] = record.offset + 1
        return records

    def wake(self) -> None:
        self._woken.set()
        if self._waiter is not None:
            self._waiter.end()

    def pause(self, partitions: Collection[Partition]) -> None:
        self._paused.update(partitions)

    def resume(self, partitions: Collection[Partition]) -> None:
        if not self._paused.isdisjoint(partitions):
            self._paused.difference_update(partitions)
            self.wake()

    def seek(self, partition: Partition, offset: int) -> None:
        if partition in self._positions:
            self._positions[partition] = offset
            self.wake()

    async def commit(self, commits: Mapping[Partition, Commit]) -> None:
        mine = {partition: commit for partition, commit in commits.items() if partition in self._positions}
        if not mine:
            await trio.lowlevel.checkpoint()
            return
        offsets = {partition: commit.offset for partition, commit in mine.items()}
        metadata = {partition: commit.metadata for partition, commit in mine.items() if commit.metadata}
        await self._ask(log.Commit(self._group, offsets, metadata))

    async def leave(self) -> None:
        await trio.lowlevel.checkpoint()
        self._positions.clear()
        self._assignee = None

    async def _fetch(self, positions: Mapping[Partition, int], limit: int, wait: float) -> list[Record]:
        self._waiter = waiter = Waiter(frozenset(topic for topic, _ in positions))
        try:
            records: list[Record] = await self._ask(log.Fetch(positions, limit, wait, waiter), wait)
        finally:
            self._waiter = None
        # Of a partition that was sought while the log answered, nothing: it goes on elsewhere.
        moved = {at for at, offset in positions.items() if self._positions.get(at) != offset}
        return [record for record in records if (record.topic, record.partition) not in moved] if moved else records

    async def _look_for_partitions(self) -> bool:
        """Whether there are new ones. Nothing is asked before the next refresh is due."""
        if trio.current_time() < self._refresh_at or self._assignee is None:
            return False
        known: Mapping[Partition, Commit] = await self._ask(log.Progress(self._group, self._topics))
        self._refresh_at = trio.current_time() + self._refresh
        new = {at: known[at] for at in sorted(known.keys() - self._positions.keys())}
        if new:
            self._positions |= {at: commit.offset for at, commit in new.items()}
            await self._assignee.assigned({at: Start(commit.offset, 1, commit.metadata) for at, commit in new.items()})
        return bool(new)

    async def _ask(self, message: Any, wait: float = 0.0) -> Any:
        try:
            return await self._ref.ask(message, timeout=wait + self._timeout)
        except ActorError as error:
            raise StoreUnavailable(f"the event log did not answer: {root_error(error)!r}") from error
