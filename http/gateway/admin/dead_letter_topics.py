"""The dead-letter topics of the log, read through the `event_log` actor, a page a message."""

import re
from collections.abc import AsyncIterator, Collection, Sequence

from actors.event_log.messages import DropRecords, Ends, Fetch, Groups, Topics
from backends.ports.events import Partition, Record
from gateway.admin.operations import Lookup, OperationError

PAGE = 500
TIMEOUT_S = 10.0
SUFFIX = ".dlt"
_ID = re.compile(rf"(.+{re.escape(SUFFIX)})/([0-9]{{1,9}})/([0-9]{{1,18}})")


class DeadLetterTopics:
    """Args: *groups*: those that are declared; the log knows those that were, too."""

    def __init__(self, lookup: Lookup, groups: Collection[str]) -> None:
        self._lookup = lookup
        self._groups = frozenset(groups)

    async def all(self) -> AsyncIterator[Record]:
        """Those that are there now, oldest first within each partition."""
        log = self._lookup("event_log")
        for topic in await log.ask(Topics(), timeout=TIMEOUT_S):
            if not topic.name.endswith(SUFFIX):
                continue
            ends: dict[Partition, int] = await log.ask(Ends(topic.name), timeout=TIMEOUT_S)
            for partition, end in sorted(ends.items()):
                position = 0
                while position < end and (records := await self._fetch(partition, position)):
                    for record in records:
                        if record.offset < end:
                            yield record
                    position = records[-1].offset + 1

    async def at(self, places: Sequence[tuple[Partition, int]]) -> dict[tuple[Partition, int], Record]:
        """Those of *places* that are there. As many messages as pages, where they lie side by side."""
        wanted: dict[Partition, list[int]] = {}
        for partition, offset in sorted(set(places)):
            wanted.setdefault(partition, []).append(offset)
        found: dict[tuple[Partition, int], Record] = {}
        for partition, offsets in wanted.items():
            due = iter(offsets)
            position = next(due, None)
            while position is not None and (records := await self._fetch(partition, position, offsets[-1])):
                by_offset = {record.offset: record for record in records}
                last = records[-1].offset
                while position is not None and position <= last:
                    if position in by_offset:
                        found[partition, position] = by_offset[position]
                    position = next(due, None)
        return found

    async def drop(self, places: Sequence[tuple[Partition, int]]) -> None:
        """One message a partition."""
        offsets: dict[Partition, list[int]] = {}
        for partition, offset in places:
            offsets.setdefault(partition, []).append(offset)
        for partition, dropped in offsets.items():
            await self._lookup("event_log").ask(DropRecords(partition, tuple(dropped)), timeout=TIMEOUT_S)

    async def check_group(self, group: str | None) -> None:
        """Raises OperationError for a group that does not exist and never did: a misspelling must not look like
        a group without dead letters."""
        if group is None or group in self._groups:
            return
        known = self._groups | (await self._lookup("event_log").ask(Groups(), timeout=TIMEOUT_S)).keys()
        if group not in known:
            raise OperationError(f"there is no consumer group {group[:200]!r}; there are: {', '.join(sorted(known))}")

    async def _fetch(self, partition: Partition, position: int, last: int | None = None) -> Sequence[Record]:
        most = PAGE if last is None else max(1, min(PAGE, last - position + 1))
        records: Sequence[Record] = await self._lookup("event_log").ask(
            Fetch({partition: position}, most), timeout=TIMEOUT_S
        )
        return records


def place_of(id: str) -> tuple[Partition, int]:
    """Raises OperationError for what is no dead letter's id."""
    match = _ID.fullmatch(id)
    if match is None:
        raise OperationError(f"{id[:200]!r} is not the id of a dead letter; write it as topic{SUFFIX}/partition/offset")
    return (match[1], int(match[2])), int(match[3])
