"""What an error from behind another actor says about the event that was being handled."""

from actors.consumers.retry import Verdict, classify
from actors.runtime import ActorRestarting, ActorStopped, MailboxFull, Reject


def root_error(error: Exception) -> Exception:
    """The error that an actor refused with, instead of the `Reject` that carries it."""
    return error.error if isinstance(error, Reject) and isinstance(error.error, Exception) else error


def verdict_of(error: Exception) -> Verdict:
    """`retry.classify`, which also knows the errors that say a message was certainly not looked at."""
    error = root_error(error)
    return "away" if isinstance(error, ActorRestarting | ActorStopped | MailboxFull) else classify(error)
