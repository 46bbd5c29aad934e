"""Which dead letters an operator means, and what they have in common. Pure."""

from dataclasses import dataclass

import msgspec

from actors.consumers.dead_letters import DeadLetter


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Conditions joined by AND; None is no condition. `reason`: a part of the exception or its message, in any case."""

    group: str | None = None
    type: str | None = None
    reason: str | None = None

    def __contains__(self, letter: DeadLetter) -> bool:
        return (
            self.group in (None, letter.group)
            and self.type in (None, letter.event_type)
            and (self.reason is None or self.reason.casefold() in reason_of(letter).casefold())
        )


class Reason(msgspec.Struct, kw_only=True):
    """How many dead letters a group has of one type of event and one kind of exception. Times are Unix seconds."""

    count: int = 0
    group: str
    type: str
    exception: str
    first: float
    last: float
    example: str


def reason_of(letter: DeadLetter) -> str:
    return f"{letter.exception}: {letter.message}" if letter.message else letter.exception


class Histogram:
    """Counts by group, type and exception class: messages name ids and times, and no two are alike."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[str, str, str], Reason] = {}

    def add(self, letter: DeadLetter) -> None:
        group, type, exception = key = (letter.group, letter.event_type, letter.exception)
        reason = self._reasons.get(key)
        if reason is None:
            first, last = letter.first_failure, letter.last_failure
            reason = self._reasons[key] = Reason(
                group=group, type=type, exception=exception, first=first, last=last, example=letter.message
            )
        reason.count += 1
        reason.first = min(reason.first, letter.first_failure)
        reason.last = max(reason.last, letter.last_failure)

    def reasons(self) -> list[Reason]:
        """The commonest first."""
        return sorted(
            self._reasons.values(), key=lambda found: (-found.count, found.group, found.type, found.exception)
        )
