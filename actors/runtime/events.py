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
    """An incarnation ended by itself. `restarts` counts those so far; `delay` (seconds) precedes the next one."""

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


Event = ActorExited | ActorReady | ShutdownOverrun | StopFailed | LaterDropped
Observer = Callable[[Event], None]

_log = logging.getLogger("actors.runtime")


def describe(event: Event) -> str:
    """One line for a log or a terminal."""
    match event:
        case ActorReady(actor, incarnation):
            return f"{actor} is ready (incarnation {incarnation})"
        case ActorExited(actor, exit, restarts, delay, next):
            because = f": {type(exit.error).__name__}: {exit.error}" if exit.error is not None else ""
            then = {
                "restart": f"restart {restarts + 1} in {delay:.1f} s",
                "escalate": "its supervisor gives up",
                "end": "it stays down",
                "give_up": "it is given up",
            }[next]
            return f"{actor} {exit.kind.replace('_', ' ')}{because}; {then}"
        case ShutdownOverrun(actor, phase, budget):
            return f"{actor} was cut off: its {phase} outlived the shutdown budget of {budget:.1f} s"
        case StopFailed(actor, error):
            return f"{actor} failed in on_stop: {type(error).__name__}: {error}"
        case LaterDropped(actor, message):
            return f"{actor} dropped a Later without an answer: nobody can answer that {message} any more"


def log_event(event: Event) -> None:
    """The default observer."""
    if isinstance(event, ActorReady):
        _log.debug("%s", describe(event))
        return
    error = event.exit.error if isinstance(event, ActorExited) else getattr(event, "error", None)
    _log.warning("%s", describe(event), exc_info=error if isinstance(error, BaseException) else None)
