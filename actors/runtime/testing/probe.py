"""A probe: the actor that stands where a neighbour of the one under test would be.

It writes down what it is sent, answers by script, and tells a test what came, or that nothing did.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, TypeVar, overload

import trio

from actors.runtime import Actor, Child, Later, Mailbox, Ref, Reject
from actors.runtime.testing.clock import happens, require_virtual_time
from actors.runtime.testing.faults import Raise

T = TypeVar("T")


class Never(Enum):
    """The answer that is never given."""

    NEVER = "never"


NEVER = Never.NEVER


@dataclass(frozen=True, slots=True)
class After:
    """Give that answer so many seconds later. Messages that come meanwhile do not wait for it."""

    seconds: float
    answer: Any = None


@dataclass(frozen=True, slots=True)
class Call:
    """Answer with what `fn(message)` returns, awaited if need be. It may raise `Reject`."""

    fn: Callable[[Any], Any]


class Probe:
    """One probe, over all lives of its actor. Give it to `actor_system` as it is, or as `probe.child()` in a tree.

    Attributes:
        received: every message, in order of arrival.
    """

    def __init__(self, id: str) -> None:
        self.id = id
        self.received: list[Any] = []
        self._arrivals = trio.lowlevel.ParkingLot()
        self._times: list[float] = []
        self._read = 0
        self._scripts: list[tuple[Any, list[Any]]] = []
        self._ref: Ref[Any] | None = None

    @property
    def ref(self) -> Ref[Any]:
        """Where to send to it; known from its start on."""
        if self._ref is None:
            raise LookupError(f"probe {self.id!r} was not started: is it in the tree?")
        return self._ref

    def child(self, **options: Any) -> Child:
        """The child to put in a tree; *options* are those of `Child`."""
        return Child(self.id, partial(_ProbeActor, self), **{"mailbox": Mailbox(1024), "shutdown": 1.0, **options})

    def on(self, expected: Any, *answers: Any) -> "Probe":
        """Answer messages of a type, or equal to a value: in the order given, the last one from then on.

        An answer is a value, a `Reject`, or one of `After`, `Call`, `NEVER`; `Raise` crashes the probe instead.
        Of several scripts that fit, the newest counts. Without one, messages are answered None. Returns the probe.
        """
        if not answers:
            raise ValueError("a script has at least one answer")
        self._scripts.insert(0, (expected, list(answers)))
        return self

    @overload
    async def expect(self, expected: type[T], *, within: float = 10.0) -> T: ...
    @overload
    async def expect(self, expected: object, *, within: float = 10.0) -> Any: ...
    async def expect(self, expected: Any, *, within: float = 10.0) -> Any:
        """The next message that no `expect` has returned yet, which must be of that type, or equal to that value.

        Waits up to *within* virtual seconds, the last moment included. Raises AssertionError when nothing comes, or
        something else; what came stays unread then.
        """
        require_virtual_time()
        if not await self._comes(within):
            raise AssertionError(f"probe {self.id!r} expected {_named(expected)} within {within} s, but nothing came")
        message = self.received[self._read]
        if not _fits(message, expected):
            raise AssertionError(f"probe {self.id!r} expected {_named(expected)}, but next came {self._unread()}")
        self._read += 1
        return message

    async def expect_nothing(self, *, for_: float) -> None:
        """Wait so many virtual seconds; raises AssertionError at a message that comes by then.

        Exact: all that happens up to and at the last moment has happened when this returns.
        """
        require_virtual_time()
        if await self._comes(for_):
            raise AssertionError(f"probe {self.id!r} expected nothing for {for_} s, but there came {self._unread()}")

    async def _comes(self, within: float) -> bool:
        return await happens(lambda: self._read < len(self.received), self._arrivals, within)

    def _unread(self) -> str:
        first, *rest = (
            f"{message!r} at {at:g} s"
            for message, at in zip(self.received[self._read :], self._times[self._read :], strict=True)
        )
        return first if not rest else f"{first} (and after it {', '.join(rest)})"

    def _take(self, message: Any) -> Any:
        """Write the message down; returns its answer."""
        self.received.append(message)
        self._times.append(trio.current_time())
        self._arrivals.unpark_all()
        for expected, answers in self._scripts:
            if _fits(message, expected):
                return answers.pop(0) if len(answers) > 1 else answers[0]
        return None


class _ProbeActor(Actor[Any]):
    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    async def on_start(self) -> None:
        self._probe._ref = self.ref

    async def handle(self, message: Any) -> Any:
        answer = self._probe._take(message)
        if isinstance(answer, Raise):
            raise answer.error()
        if not isinstance(answer, (After, Call, Never)):
            return answer
        later = self.later()
        self.spawn(self._answer, later, message, answer)
        return later

    async def _answer(self, later: Later, message: Any, answer: Any) -> None:
        try:
            while isinstance(answer, (After, Call, Never)):
                answer = await self._resolve(message, answer)
        except Reject as refusal:
            answer = refusal
        if isinstance(answer, Raise):
            raise answer.error()
        if isinstance(answer, Reject):
            later.fail(answer.error)
        else:
            later.answer(answer)

    async def _resolve(self, message: Any, answer: After | Call | Never) -> Any:
        match answer:
            case After(seconds, then):
                await trio.sleep(seconds)
                return then
            case Call(fn):
                result = fn(message)
                return await result if inspect.isawaitable(result) else result
            case Never.NEVER:
                return await trio.sleep_forever()


def _fits(message: Any, expected: Any) -> bool:
    return isinstance(message, expected) if isinstance(expected, type) else bool(message == expected)


def _named(expected: Any) -> str:
    return expected.__name__ if isinstance(expected, type) else repr(expected)
