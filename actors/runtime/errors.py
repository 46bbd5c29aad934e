"""What an ask can end in besides a value.

ActorError
  Reject            the actor refused this message; `.error` says why
  AskTimeout        the deadline passed; the message may have been handled
  MailboxFull       the message was not accepted, or was dropped to make room
  ActorCrashed      the actor crashed with the message in hand; it may have been handled
  ActorRestarting   the actor is in backoff; try again after `.retry_after` seconds
  ActorStopped      the actor has ended for good, or is about to
  AskCycle          the ask would wait for the actor that makes it; it was not sent
  NeverAnswered     the actor dropped its promise to answer later; it may have been handled

StartFailed and TooManyChildren end a `start_child`. SupervisorGaveUp is none of these: it ends the system.
"""


class ActorError(Exception):
    """Base class of every way in which an ask or a tell fails."""


class Reject(ActorError):
    """Raised by a handler to refuse one message; its asker gets `Reject` with `.error` as given."""

    def __init__(self, error: object) -> None:
        super().__init__(error)
        self.error = error


class AskTimeout(ActorError):
    """The ask's deadline passed. A timeout does not cancel the work: it may have been handled."""


class MailboxFull(ActorError):
    """The mailbox had no room, and its policy was not to wait."""


class ActorCrashed(ActorError):
    """The actor crashed while it had the message in hand: it may have been handled.

    `__cause__` is the exception that crashed it.
    """


class ActorRestarting(ActorError):
    """The actor is in backoff. `retry_after`: seconds until its next start."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ActorStopped(ActorError):
    """The actor ended for good; the message was not handled."""


class AskCycle(ActorError):
    """An ask, made in a handler, that would wait for that very handler: to itself, or through others.

    `cycle`: the ids on the way, from the asking actor back to it. The message was not sent.
    """

    def __init__(self, cycle: list[str]) -> None:
        super().__init__(f"{cycle[0]} would wait for itself: {' -> '.join(cycle)}; the message was not sent")
        self.cycle = cycle


class NeverAnswered(ActorError):
    """The actor said it would answer later, and dropped the `Later`: nobody can answer. It may have been handled."""


class StartFailed(ActorError):
    """The child did not become ready and is gone; `__cause__` says why."""


class TooManyChildren(ActorError):
    """The dynamic supervisor has as many children as it may have; none was started."""


class StartTimeout(Exception):
    """The factory and `on_start` together took longer than `start_timeout`."""


class InjectedCrash(Exception):
    """Somebody asked for this crash (`System.crash`): a game day or a test."""


class Killed(Exception):
    """Somebody asked for it (`Ref.kill`): the cause of the `ActorCrashed` of what was in hand."""


class SupervisorGaveUp(Exception):
    """Restarting no longer helps: the restart intensity was exceeded, or a first start failed.

    `__cause__` is the last failure. At the root it ends the system.
    """
