"""What the runtime reports: one event for each exit of an actor or supervisor, and for what went wrong beside it.

Reported to the system's observer; the default one writes them to the log.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

ExitKind = Literal["normal", "crashed", "start_failed", "stopped", "killed", "gave_up"]
Next = Literal["restart", "escalate", "end", "give_up"]
"""`end`: it stays down, as declared or asked for. `give_up`: it stays down, and its supervisor goes on without it."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How an incarnation ended. `stopped`: it was asked to; `killed`: it was cut off, for it outlived its shutdown
    budget or by `Ref.kill`."""

    kind: ExitKind
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class ActorExited:
    """An incarnation ended by itself, or as its reference was asked to end it: reported once, when its supervisor has
    decided. `restarts` counts those so far; `delay` (seconds) precedes the next one."""

    actor: str
    exit: Exit
    restarts: int
    delay: float
    next: Next


@dataclass(frozen=True, slots=True)
class ActorTakenDown:
    """An incarnation was stopped by its supervisor, with its group or because that gives up; else as `ActorExited`.

    Each end of an incarnation is one of these two, once. (The stop of the whole system reports none.)
    """

    actor: str
    exit: Exit
    restarts: int
    delay: float
    next: Next


@dataclass(frozen=True, slots=True)
class ActorReady:
    actor: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class ShutdownOverrun:
    """An incarnation was cancelled because `phase` (`drain` or `on_stop`) outlived the budget of `budget` seconds."""

    actor: str
    phase: Literal["drain", "on_stop"]
    budget: float


@dataclass(frozen=True, slots=True)
class StopFailed:
    """`on_stop` raised."""

    actor: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class LaterDropped:
    """A `Later` was dropped unanswered; *message* is the name of its message's type."""

    actor: str
    message: str


Event = ActorExited | ActorTakenDown | ActorReady | ShutdownOverrun | StopFailed | LaterDropped
Observer = Callable[[Event], None]

_log = logging.getLogger("actors.runtime")


def describe(event: Event) -> str:
    """One line for a log or a terminal."""
    match event:
        case ActorReady(actor, incarnation):
            return f"{actor} is ready (incarnation {incarnation})"
        case ActorExited(actor, exit, restarts, delay, next):
            because = f": {type(exit.error).__name__}: {exit.error}" if exit.error is not None else ""
            return f"{actor} {exit.kind.replace('_', ' ')}{because}; {_then(restarts, delay, next)}"
        case ActorTakenDown(actor, exit, restarts, delay, next):
            return f"{actor} {exit.kind} by its supervisor; {_then(restarts, delay, next)}"
        case ShutdownOverrun(actor, phase, budget):
            return f"{actor} was cut off: its {phase} outlived the shutdown budget of {budget:.1f} s"
        case StopFailed(actor, error):
            return f"{actor} failed in on_stop: {type(error).__name__}: {error}"
        case LaterDropped(actor, message):
            return f"{actor} dropped a Later without an answer: nobody can answer that {message} any more"


def _then(restarts: int, delay: float, next: Next) -> str:
    match next:
        case "restart":
            return f"restart {restarts + 1} in {delay:.1f} s"
        case "escalate":
            return "its supervisor gives up"
        case "end":
            return "it stays down"
        case "give_up":
            return "it is given up"


def log_event(event: Event) -> None:
    """The default observer."""
    if isinstance(event, ActorReady | ActorTakenDown):
        _log.log(logging.DEBUG if isinstance(event, ActorReady) else logging.INFO, "%s", describe(event))
        return
    error = event.exit.error if isinstance(event, ActorExited) else getattr(event, "error", None)
    _log.warning("%s", describe(event), exc_info=error if isinstance(error, BaseException) else None)
