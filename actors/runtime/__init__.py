"""The actor runtime: OTP's supervision, Akka's backoff, trio's structured concurrency.

Imports trio and nothing of Weir. Runs under trio's MockClock as it does on the real one.
"""

from actors.runtime.actor import Actor, Timer
from actors.runtime.backoff import Backoff
from actors.runtime.dead_letters import DeadLetter, DeadLetters
from actors.runtime.dynamic import DynamicRef
from actors.runtime.errors import (
    ActorCrashed,
    ActorError,
    ActorRestarting,
    ActorStopped,
    AskCycle,
    AskTimeout,
    InjectedCrash,
    Killed,
    MailboxFull,
    NeverAnswered,
    Reject,
    StartFailed,
    StartTimeout,
    SupervisorGaveUp,
    TooManyChildren,
)
from actors.runtime.events import (
    ActorExited,
    ActorReady,
    ActorTakenDown,
    Event,
    Exit,
    LaterDropped,
    ShutdownOverrun,
    StopFailed,
    describe,
    log_event,
)
from actors.runtime.later import Later
from actors.runtime.measures import ActorMetrics, Histogram
from actors.runtime.monitors import Down, Monitor
from actors.runtime.ref import Ref
from actors.runtime.spec import Child, DynamicSupervisor, Mailbox, Pool, Supervisor
from actors.runtime.system import System, open_system
from actors.runtime.trace import Trace, current_trace, use_trace

__all__ = [
    "Actor",
    "ActorCrashed",
    "ActorError",
    "ActorExited",
    "ActorMetrics",
    "ActorReady",
    "ActorRestarting",
    "ActorStopped",
    "ActorTakenDown",
    "AskCycle",
    "AskTimeout",
    "Backoff",
    "Child",
    "DeadLetter",
    "DeadLetters",
    "Down",
    "DynamicRef",
    "DynamicSupervisor",
    "Event",
    "Exit",
    "Histogram",
    "InjectedCrash",
    "Killed",
    "Later",
    "LaterDropped",
    "Mailbox",
    "MailboxFull",
    "Monitor",
    "NeverAnswered",
    "Pool",
    "Ref",
    "Reject",
    "ShutdownOverrun",
    "StartFailed",
    "StartTimeout",
    "StopFailed",
    "Supervisor",
    "SupervisorGaveUp",
    "System",
    "Timer",
    "TooManyChildren",
    "Trace",
    "current_trace",
    "describe",
    "log_event",
    "open_system",
    "use_trace",
]
