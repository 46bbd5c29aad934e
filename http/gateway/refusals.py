"""What the gateway answers when a stage refuses or fails, as problems. Pure.

Sources: RFC 6750 §3 (Bearer challenges), RFC 9457, the RateLimit draft's problem types.
"""

import math
from typing import Any

from actors.rate_limiter.messages import Verdict
from actors.router.messages import InsufficientScope, NoRoute, NotAuthenticated, RoutingError
from actors.runtime import ActorCrashed, ActorRestarting, ActorStopped, AskTimeout, MailboxFull, Reject
from backends.ports.entities import StoreUnavailable
from backends.ports.limits import LimitsUnavailable
from gateway.problem import QUOTA_EXCEEDED, REDUCED_CAPACITY, ProblemError, problem
from gateway.request import Response

_UNREADABLE = {
    400: "this is no HTTP/1.1 request, or its head breaks the syntax of RFC 9112",
    408: "the request was not complete in time",
    413: "the body is too large",
    431: "the head of the request is too large",
    500: "the application behind this server failed",
    501: "this method or transfer coding is not implemented",
    505: "only HTTP/1.0 and HTTP/1.1 are spoken here",
}
_BUSY_RETRY_S = 1
_STOPPED_RETRY_S = 5


class Challenges:
    """Answers that carry `WWW-Authenticate: Bearer` for *realm* (printable ASCII without quotes)."""

    def __init__(self, realm: str) -> None:
        self._realm = f'Bearer realm="{realm}"'

    def missing(self) -> ProblemError:
        """No credentials: no error code, as the caller did nothing wrong yet (RFC 6750 §3.1)."""
        return self._problem(401, "send `Authorization: Bearer` with an access token")

    def malformed(self) -> ProblemError:
        detail = "the Authorization header is malformed: send one, as `Bearer` and one token"
        return self._problem(400, detail, 'error="invalid_request"')

    def invalid(self) -> ProblemError:
        return self._problem(401, "the access token is malformed, unknown, expired or revoked", 'error="invalid_token"')

    def insufficient(self, scope: str) -> ProblemError:
        return self._problem(
            403, f"the access token lacks the scope {scope}", f'error="insufficient_scope", scope="{scope}"'
        )

    def of_routing(self, error: RoutingError) -> ProblemError:
        match error:
            case NoRoute():
                return ProblemError(404, "there is nothing at this path")
            case NotAuthenticated():
                return self.missing()
            case InsufficientScope(scope=scope):
                return self.insufficient(scope)

    def _problem(self, status: int, detail: str, parameters: str = "") -> ProblemError:
        challenge = f"{self._realm}, {parameters}" if parameters else self._realm
        return ProblemError(status, detail, headers=[(b"www-authenticate", challenge.encode())])


def over_limit(verdict: Verdict) -> ProblemError:
    """429. Its Retry-After is one of the RateLimit headers, which every answer of a limited request gets."""
    names = ", ".join(verdict.violated)
    extensions: dict[str, Any] = {"violated-policies": list(verdict.violated)}
    return ProblemError(
        429,
        f"too many requests for {names}; try again in {verdict.retry_after_s} s",
        type=QUOTA_EXCEEDED,
        **extensions,
    )


def unavailable(detail: str, retry_after: float) -> ProblemError:
    """503. *retry_after*: seconds, rounded up, at least one."""
    seconds = max(1, math.ceil(retry_after))
    return ProblemError(503, detail, type=REDUCED_CAPACITY, headers=[(b"retry-after", b"%d" % seconds)])


def other_method(method: str, allow: bytes) -> ProblemError:
    """A method that nothing here takes: 405 (RFC 9110 §15.5.6). What is no known method at all the parser refuses."""
    return ProblemError(405, f"{method} is not possible here", headers=[(b"allow", allow)])


def unreadable(status: int, request_id: str) -> Response:
    """The answer to what could not be read as a request: dressed as far as that goes without knowing its origin."""
    detail = _UNREADABLE.get(status, "the request could not be read")
    headers = [(b"vary", b"Origin"), (b"x-request-id", request_id.encode())]
    return problem(status, detail, request_id, headers=headers)


def timed_out(seconds: float) -> ProblemError:
    return ProblemError(504, f"the request was not answered within {seconds:g} s; a write may have happened")


def of_failure(error: Exception) -> ProblemError | None:
    """The problem for what an ask (or a service through it) failed with; None: nothing foreseen, a plain 500."""
    match error:
        case ProblemError():
            return error
        case LimitsUnavailable():
            return unavailable(f"the limit {error} cannot be counted now", _BUSY_RETRY_S)
        case StoreUnavailable():
            return unavailable("the database is away", _BUSY_RETRY_S)
        case Reject(error=Exception() as inner):
            return of_failure(inner)
        case ActorCrashed():
            return ProblemError(500, "a part of the server crashed over the request; a write may have happened")
        case AskTimeout():
            return ProblemError(504, "a part of the server did not answer in time; a write may have happened")
        case ActorRestarting(retry_after=seconds):
            return unavailable("a part of the server is restarting", seconds)
        case ActorStopped():
            return unavailable("a part of the server has stopped", _STOPPED_RETRY_S)
        case MailboxFull():
            return unavailable("the server is busy", _BUSY_RETRY_S)
        case _:
            return None
