"""Which problem an error is for the client. Pure."""

import math

from actors.runtime import ActorError, ActorRestarting, AskTimeout, Reject
from backends.ports.entities import StoreUnavailable
from gateway.problem import ProblemError
from gateway.services.answers import Absent, Invalid, KeyReused, PreconditionFailed, as_problem


def problem_for(error: object) -> ProblemError | None:
    """The problem that answers *error*, None for what nobody foresaw: log it, and answer 500."""
    match error:
        case ProblemError():
            return error
        case Reject():
            return problem_for(error.error)
        case Absent() | PreconditionFailed() | Invalid() | KeyReused():
            return as_problem(error)
        case AskTimeout() | TimeoutError():
            return ProblemError(504, "the service did not finish in time; what was asked for may have happened")
        case ActorRestarting():
            return _unavailable(max(1, math.ceil(error.retry_after)))
        case StoreUnavailable() | ActorError():
            return _unavailable(1)
        case _:
            return None


def _unavailable(retry_after: int) -> ProblemError:
    return ProblemError(
        503,
        "the service cannot answer for the moment; a write may or may not have happened",
        headers=[(b"retry-after", str(retry_after).encode())],
    )
