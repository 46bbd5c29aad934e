"""Operations on dead letters: list, show, replay, drop. Replay forgets a dead letter only after it was republished."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from actors.consumers.dead_letters import OURS, DeadLetter, describe, replay_record
from actors.consumers.notification.messages import Reset, Wake
from actors.event_log.messages import Append, DropRecords, Ends, Fetch, ReadRecord, Topics
from backends.ports.events import Partition, Record
from gateway.admin.operations import Lookup, OperationError
from gateway.services.times import rfc3339

_PAGE = 500
_SUFFIX = ".dlt"
_TIMEOUT = 10.0
_ID = re.compile(rf"(.+{re.escape(_SUFFIX)})/([0-9]{{1,9}})/([0-9]{{1,18}})")


class DeadLetterOperations:
    """Every dead-letter topic of the log, whichever group's."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def by_name(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        return {"dlq.list": self.rows, "dlq.show": self.show, "dlq.replay": self.replay, "dlq.drop": self.drop}

    async def rows(self, group: str | None = None, type: str | None = None) -> list[dict[str, Any]]:
        """All of them, oldest first within each partition, without payloads."""
        return [
            _row(letter)
            async for letter in self._letters()
            if (group is None or letter.group == group) and (type is None or letter.event_type == type)
        ]

    async def show(self, id: str) -> dict[str, Any]:
        record = await self._record(id)
        letter = describe(record)
        shown: dict[str, Any] = msgspec.to_builtins(letter)
        shown |= {"first_failure": _time(letter.first_failure), "last_failure": _time(letter.last_failure)}
        shown["value"] = _payload(record.value)
        event = ((name, value) for name, value in record.headers if name not in OURS)  # ours are shown above, decoded
        shown["headers"] = {name: value.decode("utf-8", "backslashreplace") for name, value in event}
        return shown

    async def replay(self, ids: list[str]) -> dict[str, Any]:
        """Each is republished to its group's retry topic, or its delivery is made pending again; then dropped."""
        for id in ids:
            record = await self._record(id)
            letter = describe(record)
            if letter.delivery_id:
                if not await self._lookup("deliveries").ask(Reset(letter.delivery_id), timeout=_TIMEOUT):
                    raise OperationError(f"{id}: its delivery {letter.delivery_id} is not dead (any more); drop it")
            else:
                try:
                    again = replay_record(record)
                except ValueError as error:
                    raise OperationError(str(error)) from None
                await self._lookup("event_log").ask(Append((again,), durable=True), timeout=_TIMEOUT)
            await self._drop(record.topic, record.partition, record.offset)
        self._wake()
        return {"count": len(ids)}

    async def drop(self, ids: list[str]) -> dict[str, Any]:
        for id in ids:
            record = await self._record(id)
            await self._drop(record.topic, record.partition, record.offset)
        return {"count": len(ids)}

    def _wake(self) -> None:
        self._lookup("deliveries").try_tell(Wake())

    async def _drop(self, topic: str, partition: int, offset: int) -> None:
        await self._lookup("event_log").ask(DropRecords((topic, partition), (offset,)), timeout=_TIMEOUT)

    async def _record(self, id: str) -> Record:
        topic, partition, offset = _parsed(id)
        record: Record | None = await self._lookup("event_log").ask(
            ReadRecord((topic, partition), offset), timeout=_TIMEOUT
        )
        if record is None:
            raise OperationError(f"there is no dead letter {id}; `dlq list` shows those there are")
        return record

    async def _letters(self) -> AsyncIterator[DeadLetter]:
        log = self._lookup("event_log")
        for topic in await log.ask(Topics(), timeout=_TIMEOUT):
            if not topic.name.endswith(_SUFFIX):
                continue
            ends: dict[Partition, int] = await log.ask(Ends(topic.name), timeout=_TIMEOUT)
            for partition, end in sorted(ends.items()):
                position = 0
                while position < end:
                    records = await log.ask(Fetch({partition: position}, _PAGE), timeout=_TIMEOUT)
                    if not records:
                        break
                    for record in records:
                        yield describe(record)
                    position = records[-1].offset + 1


def _parsed(id: str) -> tuple[str, int, int]:
    match = _ID.fullmatch(id)
    if match is None:
        raise OperationError(
            f"{id[:200]!r} is not the id of a dead letter; write it as topic{_SUFFIX}/partition/offset"
        )
    return match[1], int(match[2]), int(match[3])


def _row(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "group": letter.group,
        "type": letter.event_type,
        "key": letter.key,
        "event_id": letter.event_id,
        "attempts": letter.attempts,
        "replays": letter.replay_count,
        "at": _time(letter.last_failure),
        "reason": f"{letter.exception}: {letter.message}",
        "endpoint": letter.endpoint,
    }


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
