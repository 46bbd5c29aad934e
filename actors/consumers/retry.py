"""When to try again, and when to give up. Pure: errors and numbers in, a verdict out.

Touches no clock and no log: the consumers and the deliveries own those.
"""

from dataclasses import dataclass
from typing import Literal

import msgspec

from backends.ports.cloudevents import Undecodable
from backends.ports.entities import StoreUnavailable
from backends.ports.event_log import Attempt

Verdict = Literal["permanent", "transient", "away"]
"""`permanent`: no further attempt can help. `transient`: another may. `away`: the sink did not look at the
event at all, so this was no attempt: wait and charge nobody, else an outage of a minute would turn everything
that happened in it into dead letters."""


class Permanent(Exception):
    """Raised by a handler: this event can never be processed, however often it is tried."""


# Beside what cannot be decoded: what a mistake in the code raises. The same event meets the same mistake again.
_PERMANENT = (
    Permanent,
    Undecodable,
    msgspec.MsgspecError,
    UnicodeError,
    TypeError,
    AttributeError,
    NameError,
    NotImplementedError,
)


def classify(error: BaseException) -> Verdict:
    """What *error*, raised by a handler, says about the event it was given."""
    if isinstance(error, StoreUnavailable):
        return "away"
    return "permanent" if isinstance(error, _PERMANENT) else "transient"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """`attempts` counts the first delivery. `base` and `cap` are seconds."""

    attempts: int = 3
    base: float = 0.5
    cap: float = 30.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, got {self.attempts!r}")
        if not 0 < self.base <= self.cap:
            raise ValueError(f"base must be above 0 and at most cap, got {self.base!r} and {self.cap!r}")

    def delay(self, attempts: int, jitter: float) -> float:
        """Seconds to wait after the *attempts*-th failure: min(cap, base·2ⁿ⁻¹)·U(0.5, 1).

        Args:
            attempts: failures so far, from 1.
            jitter: uniform in [0, 1). Half of the wait is kept, so that waits still grow.
        """
        # The exponent is bounded: an outage of days must not overflow a float.
        return min(self.cap, self.base * 2.0 ** min(attempts - 1, 64)) * (0.5 + 0.5 * jitter)


DEFAULT_POLICY = RetryPolicy()


@dataclass(frozen=True, slots=True)
class Again:
    """Try again at `attempt.due_at`; persist it first."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further attempt: it goes to the dead letters."""

    attempt: Attempt


def after_failure(
    policy: RetryPolicy,
    previous: Attempt | None,
    *,
    permanent: bool,
    error: str,
    now: float,
    jitter: float,
    at_least: float = 0.0,
) -> Again | GiveUp:
    """Charge one more failed attempt.

    Args:
        previous: what was counted before this attempt; None for the first.
        now: Unix seconds.
        at_least: the receiver's own wish (Retry-After), seconds; it only ever lengthens the wait.
    """
    attempts = (previous.attempts if previous else 0) + 1
    first_at = previous.first_at if previous else now
    if permanent or attempts >= policy.attempts:
        return GiveUp(Attempt(attempts, now, first_at, now, error))
    due_at = now + max(policy.delay(attempts, jitter), at_least)
    return Again(Attempt(attempts, due_at, first_at, now, error))
