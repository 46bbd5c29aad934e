"""The event log as one consumer group sees it: its positions, its attempts, its commits."""

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from actors.consumers.sink import root_error
from actors.event_log.messages import Append, Attempts, Commit, Fetch, Positions, SaveAttempt
from actors.runtime import ActorError, Ref
from backends.ports.event_log import Attempt
from backends.ports.events import NewRecord, Partition, Record

log = structlog.get_logger(__name__)


class GroupLog:
    """Asks the `event_log` actor. No ask waits for ever: *timeout* seconds, beyond what a fetch may take."""

    def __init__(self, ref: Ref[Any], group: str, timeout: float) -> None:
        self._ref = ref
        self._group = group
        self._timeout = timeout

    async def positions(self, topics: Sequence[str]) -> dict[Partition, int]:
        """Where the group goes on, in all partitions that exist. Raises ActorError."""
        found: dict[Partition, int] = {}
        for topic in topics:
            found |= await self._ask(Positions(self._group, topic))
        return found

    async def attempts(self, partition: Partition) -> dict[int, Attempt]:
        """Raises ActorError."""
        return dict(await self._ask(Attempts(self._group, partition)))

    async def fetch(self, positions: Mapping[Partition, int], limit: int, max_wait: float) -> Sequence[Record]:
        """Raises ActorError. Cancelled: nothing is lost, positions are the caller's."""
        message = Fetch(positions, limit, max_wait)
        records: Sequence[Record] = await self._ref.ask(message, timeout=max_wait + self._timeout)
        return records

    async def append(self, record: NewRecord) -> None:
        """Returns once *record* is durable. Raises ActorError; it may be stored all the same."""
        await self._ask(Append((record,), durable=True))

    async def save_attempt(self, partition: Partition, offset: int, attempt: Attempt) -> None:
        """Persist *attempt*; if the log is away it counts in memory alone until the next one."""
        try:
            await self._ask(SaveAttempt(self._group, partition, offset, attempt))
        except ActorError as error:
            log.warning("consumer.attempt_not_saved", group=self._group, offset=offset, error=repr(root_error(error)))

    async def commit(self, offsets: Mapping[Partition, int]) -> bool:
        """Whether *offsets* are stored; if not, they go along with the next commit."""
        try:
            await self._ask(Commit(self._group, offsets))
        except ActorError as error:
            log.warning("consumer.not_committed", group=self._group, error=repr(root_error(error)))
            return False
        return True

    async def _ask(self, message: Any) -> Any:
        return await self._ref.ask(message, timeout=self._timeout)
