"""An actor that does what its messages say and writes down what happened, and short forms for trees."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import trio

from actors.runtime import Actor, ActorExited, Backoff, Child, Event, Later, Mailbox, Reject, Supervisor, System
from actors.runtime import open_system as open_real_system

NO_JITTER = Backoff(jitter=0.0)
"""Restarts after 0, 0.5, 1, 2 … seconds."""

EPSILON = 0.001


class Boom(Exception):
    """The crash of these tests."""


@dataclass(frozen=True, eq=False)
class Echo:
    """Answer `value`, after `after` seconds."""

    value: Any = None
    after: float = 0.0


@dataclass(frozen=True, eq=False)
class Crash:
    """Raise `error`, after `after` seconds; only the first `times` times this message is handled, if given."""

    error: BaseException = field(default_factory=lambda: Boom("boom"))
    after: float = 0.0
    times: int | None = None
    value: Any = None


@dataclass(frozen=True, eq=False)
class Refuse:
    error: object


@dataclass(frozen=True, eq=False)
class AnswerLater:
    """Answer `value` from a spawned task after `after` seconds; None: never."""

    value: Any = None
    after: float | None = 1.0


@dataclass(frozen=True, eq=False)
class Hold:
    """Do not return before `released`."""

    released: trio.Event = field(default_factory=trio.Event)


@dataclass(frozen=True, eq=False)
class End:
    """Call `self.stop()`."""


@dataclass(frozen=True, eq=False)
class Run:
    """Call `fn(actor)`, and await and answer what it returns."""

    fn: Callable[[Any], Any]


@dataclass
class Journal:
    """What happened, and when in virtual time since the journal was opened."""

    opened: float = field(default_factory=trio.current_time)
    entries: list[tuple[float, str]] = field(default_factory=list)
    handled: list[Any] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def note(self, what: str) -> None:
        self.entries.append((round(trio.current_time() - self.opened, 6), what))

    def times(self, what: str) -> list[float]:
        return [at for at, entry in self.entries if entry == what]

    def order(self, verb: str = "") -> list[str]:
        return [entry for _at, entry in self.entries if entry.startswith(verb)]

    def exits(self, actor: str) -> list[ActorExited]:
        return [event for event in self.events if isinstance(event, ActorExited) and event.actor == actor]


class Scripted(Actor[Any]):
    """Notes `start ID` when it begins to start, `ready ID`, `stop ID` when on_stop begins, `gone ID` at its end.

    Args:
        starting: awaited in on_start, with this actor; it may raise.
        stopping: the same in on_stop.
    """

    def __init__(
        self,
        id: str,
        journal: Journal,
        starting: Callable[["Scripted"], Any] | None = None,
        stopping: Callable[["Scripted"], Any] | None = None,
    ) -> None:
        self.id = id
        self.journal = journal
        self.kept: list[Later] = []
        self._starting = starting
        self._stopping = stopping

    async def on_start(self) -> None:
        self.journal.note(f"start {self.id}")
        if self._starting is not None:
            await self._starting(self)
        self.journal.note(f"ready {self.id}")

    async def on_stop(self) -> None:
        self.journal.note(f"stop {self.id}")
        if self._stopping is not None:
            await self._stopping(self)
        self.journal.note(f"gone {self.id}")

    async def handle(self, message: Any) -> Any:
        self.journal.handled.append(message)
        match message:
            case Echo(value, after):
                await _pause(after)
                return value
            case Crash(error, after, times, value):
                await _pause(after)
                if times is None or self.journal.handled.count(message) <= times:
                    raise error
                return value
            case Refuse(error):
                raise Reject(error)
            case AnswerLater(value, after):
                later = self.later()
                self.kept.append(later)  # one that is dropped is another case
                if after is not None:
                    self.spawn(_answer, later, value, after)
                return later
            case Hold(released):
                await released.wait()
            case End():
                self.stop()
            case Run(fn):
                return await fn(self)
            case _:
                return message
        return None


class ScriptedBatch(Scripted):
    """Handles batches, and writes down how large they were."""

    async def handle_batch(self, messages: list[Any]) -> list[Any]:
        self.journal.note(f"batch of {len(messages)}")
        return [await self._one(message) for message in messages]

    async def _one(self, message: Any) -> Any:
        try:
            return await self.handle(message)
        except Reject as refusal:
            return refusal


async def _pause(seconds: float) -> None:
    if seconds:
        await trio.sleep(seconds)


async def _answer(later: Later, value: Any, after: float) -> None:
    await trio.sleep(after)
    later.answer(value)


def child(id: str, journal: Journal, actor: type[Scripted] = Scripted, **options: Any) -> Child:
    """A child with a scripted actor. `starting` and `stopping` go to the actor, the rest to `Child`."""
    scripts = {key: options.pop(key) for key in ("starting", "stopping") if key in options}
    options.setdefault("mailbox", Mailbox(16))
    options.setdefault("backoff", NO_JITTER)
    return Child(id, partial(actor, id, journal, **scripts), **options)


def tree(*children: Child | Supervisor, **options: Any) -> Supervisor:
    options.setdefault("backoff", NO_JITTER)
    return Supervisor(options.pop("id", "root"), children=children, **options)


@asynccontextmanager
async def open_system(root: Supervisor, journal: Journal | None = None, **options: Any) -> AsyncIterator[System]:
    """A system whose events go to *journal* instead of the log."""
    observer = journal.events.append if journal is not None else _ignore
    async with open_real_system(root, rng=Random(0), observer=observer, **options) as system:
        yield system


def _ignore(_event: Event) -> None:
    pass


async def ask_all(system: System, id: str, messages: Sequence[Any]) -> list[Any]:
    """Ask all at once, each from a task of its own; values and errors in the order of *messages*."""
    results: list[Any] = [None] * len(messages)

    async def ask(position: int, message: Any) -> None:
        try:
            results[position] = await system.ref(id).ask(message)
        except Exception as error:
            results[position] = error

    async with trio.open_nursery() as nursery:
        for position, message in enumerate(messages):
            nursery.start_soon(ask, position, message)
    return results


async def tell_for_ever(system: System, id: str, *messages: Any) -> None:
    """Tell all, and then wait to be cancelled."""
    for message in messages:
        await system.ref(id).tell(message)
    await trio.sleep_forever()


class Asking:
    """One ask in the background: `.value` or `.error`, and `.at` (seconds after it began), once it has ended."""

    def __init__(self, system: System, id: str, message: Any, nursery: trio.Nursery, **options: Any) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.at: float | None = None
        self.scope = trio.CancelScope()
        self._ask = partial(system.ref(id).ask, message, **options)
        nursery.start_soon(self._run)

    @property
    def ended(self) -> bool:
        return self.at is not None

    async def _run(self) -> None:
        begun = trio.current_time()
        with self.scope:
            try:
                self.value = await self._ask()
            except Exception as error:
                self.error = error
            except trio.Cancelled as cancelled:
                self.error = cancelled
                raise
            finally:
                self.at = round(trio.current_time() - begun, 6)


def state_of(system: System, id: str) -> dict[str, Any]:
    """The snapshot of one node."""

    def find(node: dict[str, Any]) -> dict[str, Any] | None:
        if node["id"] == id:
            return node
        return next((found for below in node.get("children", []) if (found := find(below))), None)

    found = find(system.snapshot())
    assert found is not None
    return found
