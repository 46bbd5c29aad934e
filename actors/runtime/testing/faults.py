"""Faults on purpose: what is to go wrong with an actor, when, and in which of its lives.

A fault is a frozen value and a plan is a tuple of them. `with_faults` puts a plan around a factory, so neither the
actor nor its supervisor knows: what they see is an actor that crashes, hangs or is slow.
"""

from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass
from inspect import isawaitable
from typing import Any, Literal, assert_never, get_args

import trio

from actors.runtime import Actor

Point = Literal["on_start", "handle", "on_stop"]


class InjectedFault(Exception):
    """The exception of a fault that names no other.

    Not the runtime's `InjectedCrash`, which does not count as a message's own crash under `retry_once`.
    """

    def __init__(self, what: str = "on purpose") -> None:
        super().__init__(what)


@dataclass(frozen=True, slots=True)
class Raise:
    """Raise what `error()` makes: an exception class, or a function that returns an exception (or a group)."""

    error: Callable[[], BaseException] = InjectedFault


@dataclass(frozen=True, slots=True)
class Hang:
    """Never come back, but do obey cancellation."""


@dataclass(frozen=True, slots=True)
class Slow:
    """Take so many seconds longer."""

    seconds: float

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise ValueError(f"slow means more than 0 seconds, got {self.seconds}")


Effect = Raise | Hang | Slow


@dataclass(frozen=True, slots=True)
class Fault:
    """At *point*, *effect* happens; before what the actor does there, or with `after` once that is done.

    Attributes:
        incarnation: only in that life of the actor, counted from 1, or in those of a range; None: in every one.
        message: only at the nth delivery to the actor, counted from 1 over all its lives. A message given again
            after a crash counts again.
        when: only at a message for which this is true.
        after: a crash after handling is the one that leaves work done and nobody told.

    An actor that handles batches is struck as a whole when one message of the batch fits.
    """

    point: Point
    effect: Effect = Raise()
    _: KW_ONLY
    incarnation: int | range | None = None
    message: int | None = None
    when: Callable[[Any], bool] | None = None
    after: bool = False

    def __post_init__(self) -> None:
        if self.point not in get_args(Point):
            raise ValueError(f"a fault is at one of {', '.join(get_args(Point))}; got {self.point!r}")
        if self.point != "handle" and (self.message is not None or self.when is not None):
            raise ValueError(f"{self.point} has no message: `message` and `when` belong to a fault at `handle`")
        if self.message is not None and self.message < 1:
            raise ValueError(f"messages are counted from 1, got {self.message}")

    def strikes(self, incarnation: int, first: int = 0, messages: list[Any] | None = None) -> bool:
        """Whether it happens in that life, at those messages, the first of which is the *first* ever delivered."""
        if isinstance(self.incarnation, int) and incarnation != self.incarnation:
            return False
        if isinstance(self.incarnation, range) and incarnation not in self.incarnation:
            return False
        return messages is None or any(
            (self.message is None or self.message == number) and (self.when is None or self.when(message))
            for number, message in enumerate(messages, first)
        )


def with_faults(factory: Callable[..., Actor[Any]], *plan: Fault) -> Callable[..., Actor[Any]]:
    """A factory of actors that fail by *plan*; faults at the same point happen in the order given.

    Lives and messages are counted from this call on, over all actors that it makes: give each child a factory of
    its own; in a pool the nth is the nth of all its workers.
    """
    return _Faulty(factory, plan)


class _Faulty:
    def __init__(self, factory: Callable[..., Actor[Any]], plan: tuple[Fault, ...]) -> None:
        self._factory = factory
        self._plan = plan
        self._incarnation = 0
        self._delivered = 0

    def __call__(self, *args: Any) -> Actor[Any]:
        self._incarnation += 1
        actor = self._factory(*args)
        own = vars(actor)  # over the methods of its class
        own["on_start"] = self._around("on_start", actor.on_start)
        own["on_stop"] = self._around("on_stop", actor.on_stop)
        if actor.handle_batch is not None:
            own["handle_batch"] = self._around_messages(actor.handle_batch, list)
        else:
            own["handle"] = self._around_messages(actor.handle, lambda message: [message])
        return actor

    def _around(self, point: Point, method: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        faults = [fault for fault in self._plan if fault.point == point and fault.strikes(self._incarnation)]

        async def faulty() -> None:
            await _inflict(faults, after=False)
            await method()
            await _inflict(faults, after=True)

        return faulty

    def _around_messages(
        self, method: Callable[[Any], Awaitable[Any]], messages_of: Callable[[Any], list[Any]]
    ) -> Callable[[Any], Awaitable[Any]]:
        async def faulty(given: Any) -> Any:
            messages = messages_of(given)
            first = self._delivered + 1
            self._delivered += len(messages)
            faults = [
                fault
                for fault in self._plan
                if fault.point == "handle" and fault.strikes(self._incarnation, first, messages)
            ]
            await _inflict(faults, after=False)
            result = method(given)
            if isawaitable(result):  # else its handler is a plain function
                result = await result
            await _inflict(faults, after=True)
            return result

        return faulty


async def _inflict(faults: list[Fault], *, after: bool) -> None:
    for fault in faults:
        if fault.after == after:
            match fault.effect:
                case Raise(error):
                    raise error()
                case Hang():
                    await trio.sleep_forever()
                case Slow(seconds):
                    await trio.sleep(seconds)
                case _:
                    assert_never(fault.effect)
