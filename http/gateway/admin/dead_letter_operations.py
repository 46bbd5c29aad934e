"""Operations on dead letters: list, count by reason, show, replay, drop.

Replay forgets a dead letter only after it was republished: a crash in between replays it twice, which the groups
absorb, and loses none.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from typing import Any

import msgspec
import trio

from actors.consumers.dead_letters import OURS, DeadLetter, describe, replay_record
from actors.consumers.notification.messages import Reset, Wake
from actors.event_log.messages import Append
from backends.ports.events import NewRecord, Partition, Record
from backends.ports.stores import Progress
from gateway.admin.dead_letter_selection import Histogram, Selection, reason_of
from gateway.admin.dead_letter_topics import TIMEOUT_S, DeadLetterTopics, place_of
from gateway.admin.operations import Lookup, OperationError
from gateway.services.times import rfc3339

# Replayed and dropped together: one append, one fsync, and at most so many are replayed twice after a crash.
TOGETHER = 100
MAX_REPLAYS = 3


class DeadLetterOperations:
    """Every dead-letter topic of the log, whichever group's.

    Args:
        groups: the names of the consumer groups that are declared.
        max_replays: a dead letter that was replayed so often and is one again is quarantined: no replay but a
            forced one takes it.
    """

    def __init__(self, lookup: Lookup, groups: Collection[str] = (), max_replays: int = MAX_REPLAYS) -> None:
        self._lookup = lookup
        self._topics = DeadLetterTopics(lookup, groups)
        self._max_replays = max_replays

    def by_name(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        return {
            "dlq.list": self.rows,
            "dlq.reasons": self.reasons,
            "dlq.show": self.show,
            "dlq.replay": self.replay,
            "dlq.drop": self.drop,
        }

    async def rows(
        self, group: str | None = None, type: str | None = None, reason: str | None = None
    ) -> list[dict[str, Any]]:
        """Those selected, oldest first within each partition, without payloads."""
        return [self._row(letter) async for letter in self._selected(group, type, reason)]

    async def reasons(
        self, group: str | None = None, type: str | None = None, reason: str | None = None
    ) -> list[dict[str, Any]]:
        """How many of those selected there are of each kind, the commonest first."""
        rows, counted = list[dict[str, Any]](), Histogram()
        async for letter in self._selected(group, type, reason):
            counted.add(letter)
        for found in counted.reasons():
            row: dict[str, Any] = msgspec.to_builtins(found)
            rows.append(row | {"first": _time(found.first), "last": _time(found.last)})
        return rows

    async def show(self, id: str) -> dict[str, Any]:
        record = await self._record(id)
        letter = describe(record)
        shown: dict[str, Any] = msgspec.to_builtins(letter)
        shown |= {"first_failure": _time(letter.first_failure), "last_failure": _time(letter.last_failure)}
        shown["quarantined"] = self._quarantined(letter)
        shown["value"] = _payload(record.value)
        event = ((name, value) for name, value in record.headers if name not in OURS)  # ours are shown above, decoded
        shown["headers"] = {name: value.decode("utf-8", "backslashreplace") for name, value in event}
        return shown

    async def replay(
        self,
        progress: Progress,
        ids: list[str] | None = None,
        everything: bool = False,
        group: str | None = None,
        type: str | None = None,
        reason: str | None = None,
        force: bool = False,
        dry_run: bool = False,
        rate: float | None = None,
    ) -> dict[str, Any]:
        """Each is republished to its group's retry topic, or its delivery is made pending again; then dropped.

        *ids*, or *everything* that the filters leave. *rate*: at most so many a second. Answers with how many were
        replayed (`dry_run`: would be), which are quarantined, and which could not be replayed, and why.
        """
        if rate is not None and not 0 < rate <= 1e6:
            raise OperationError(f"a rate is above 0 (dead letters a second), not {rate:g}")
        chosen = await self._chosen(ids, everything, Selection(group=group, type=type, reason=reason))
        together = TOGETHER if rate is None else max(1, min(TOGETHER, round(rate / 10)))
        begun, report = trio.current_time(), _Report()
        for batch in _batches(chosen, together):
            if not dry_run and rate is not None:
                await trio.sleep_until(begun + report.looked_at / rate)
            await self._replay(batch, report, force=force, dry_run=dry_run)
            progress(report.looked_at, len(chosen))
        self._lookup("deliveries").try_tell(Wake())
        return report.answer()

    async def drop(
        self,
        progress: Progress,
        ids: list[str] | None = None,
        everything: bool = False,
        group: str | None = None,
        type: str | None = None,
        reason: str | None = None,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """For good. *ids*, or *everything* that the filters leave."""
        chosen = await self._chosen(ids, everything, Selection(group=group, type=type, reason=reason))
        report = _Report()
        for batch in _batches(chosen, TOGETHER):
            found = await self._topics.at([place_of(id) for id in batch])
            report.take(batch, found)
            if not dry_run:
                await self._topics.drop(list(found))
            report.done += [record.id for record in found.values()]
            progress(report.looked_at, len(chosen))
        return report.answer()

    # Replaying.

    async def _replay(self, batch: Sequence[str], report: "_Report", *, force: bool, dry_run: bool) -> None:
        found = await self._topics.at([place_of(id) for id in batch])
        report.take(batch, found)
        again: list[tuple[Record, NewRecord]] = []
        reset: list[tuple[Record, str]] = []
        for record in found.values():
            letter = describe(record)
            if self._quarantined(letter) and not force:
                report.quarantined.append(letter.id)
            elif letter.delivery_id:
                reset.append((record, letter.delivery_id))
            else:
                try:
                    again.append((record, replay_record(record)))
                except ValueError as error:
                    report.refused[letter.id] = str(error)
        if dry_run:
            report.done += [record.id for record, _ in (*again, *reset)]
            return
        if again:
            await self._lookup("event_log").ask(Append(tuple(new for _, new in again), durable=True), timeout=TIMEOUT_S)
        done = [record for record, _ in again]
        for record, delivery in reset:
            if await self._lookup("deliveries").ask(Reset(delivery), timeout=TIMEOUT_S):
                done.append(record)
            else:
                report.refused[record.id] = f"its delivery {delivery} is not dead (any more); drop it"
        await self._topics.drop([_place(record) for record in done])
        report.done += [record.id for record in done]

    def _quarantined(self, letter: DeadLetter) -> bool:
        return letter.replay_count >= self._max_replays

    # Which.

    async def _selected(self, group: str | None, type: str | None, reason: str | None) -> AsyncIterator[DeadLetter]:
        await self._topics.check_group(group)
        selection = Selection(group=group, type=type, reason=reason)
        async for record in self._topics.all():
            if (letter := describe(record)) in selection:
                yield letter

    async def _chosen(self, ids: list[str] | None, everything: bool, selection: Selection) -> list[str]:
        if bool(ids) == everything:
            raise OperationError("give ids, or `everything` (with filters or without)")
        if ids:
            if selection != Selection():
                raise OperationError("filters go with `everything`, not with ids")
            for id in ids:
                place_of(id)  # a typing mistake in one of them stops all
            return list(dict.fromkeys(ids))
        return [letter.id async for letter in self._selected(selection.group, selection.type, selection.reason)]

    async def _record(self, id: str) -> Record:
        place = place_of(id)
        record = (await self._topics.at([place])).get(place)
        if record is None:
            raise OperationError(f"{id}: {_ABSENT}")
        return record

    def _row(self, letter: DeadLetter) -> dict[str, Any]:
        return {
            "id": letter.id,
            "group": letter.group,
            "type": letter.event_type,
            "key": letter.key,
            "event_id": letter.event_id,
            "attempts": letter.attempts,
            "replays": letter.replay_count,
            "quarantined": self._quarantined(letter),
            "at": _time(letter.last_failure),
            "reason": reason_of(letter),
            "endpoint": letter.endpoint,
        }


_ABSENT = "there is no such dead letter; `dlq list` shows those there are"


class _Report:
    """What became of those that were looked at."""

    def __init__(self) -> None:
        self.looked_at = 0
        self.done: list[str] = []
        self.quarantined: list[str] = []
        self.refused: dict[str, str] = {}

    def take(self, ids: Sequence[str], found: Collection[tuple[Partition, int]]) -> None:
        self.looked_at += len(ids)
        self.refused |= {id: _ABSENT for id in ids if place_of(id) not in found}

    def answer(self) -> dict[str, Any]:
        return {
            "count": len(self.done),
            "ids": self.done,
            "quarantined": self.quarantined,
            "refused": [{"id": id, "why": why} for id, why in self.refused.items()],
        }


def _batches(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))


def _place(record: Record) -> tuple[Partition, int]:
    return (record.topic, record.partition), record.offset


def _time(seconds: float) -> str | None:
    return rfc3339(seconds) if seconds else None


def _payload(value: bytes | None) -> Any:
    """The payload as JSON where it is JSON, else as text."""
    if value is None:
        return None
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value.decode("utf-8", "backslashreplace")
