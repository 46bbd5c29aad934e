"""How an attempt to deliver ended, and what becomes of the delivery then. Pure."""

from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

import msgspec

from actors.consumers.failure import Failure
from actors.consumers.retry import Again, RetryPolicy, after_failure
from backends.ports.event_log import Attempt
from backends.ports.stores import Delivery

RETRY_AFTER_LIMIT = 3600.0
"""Seconds. A receiver may slow us down, not make us keep a delivery for ever."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The receiver took it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It may work later. `retry_after`: the receiver's wish, seconds."""

    failure: Failure
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Refused:
    """It will never work: no further attempt."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Gone(Refused):
    """The receiver wants nothing any more (410): it gets no other delivery either."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """There is nobody to deliver to any more (the webhook was deleted or disabled): no attempt, no dead letter."""

    reason: str


@dataclass(frozen=True, slots=True)
class Away:
    """It was not tried (Weir's own storage is away, or the relay did not answer just before): no attempt."""

    reason: str


Outcome = Sent | Failed | Refused | Withdrawn | Away


@dataclass(frozen=True, slots=True)
class Settled:
    """`dead_letter`: why it is one, None when it is none. The delivery is saved as dead once that is stored."""

    delivery: Delivery
    dead_letter: Failure | None = None


def settle(delivery: Delivery, outcome: Outcome, policy: RetryPolicy, now: float, jitter: float) -> Settled:
    """The delivery after one attempt that ended at *now* (Unix seconds) in *outcome*."""
    replace = msgspec.structs.replace
    match outcome:
        case Sent():
            first_at = delivery.first_at or now
            attempts = delivery.attempts + 1
            done = replace(delivery, state="done", attempts=attempts, first_at=first_at, last_at=now, error="")
            return Settled(done)
        case Withdrawn(reason):
            return Settled(replace(delivery, state="withdrawn", last_at=now, error=reason))
        case Away(reason):
            return Settled(replace(delivery, due_at=now + policy.delay(1, jitter), error=reason))
        case Failed(failure, retry_after):
            wish, permanent = min(retry_after, RETRY_AFTER_LIMIT), False
        case Refused(failure):
            wish, permanent = 0.0, True
    verdict = after_failure(
        policy,
        attempt_of(delivery),
        permanent=permanent,
        error=str(failure),
        now=now,
        jitter=jitter,
        at_least=wish,
    )
    attempt = verdict.attempt
    after = replace(
        delivery,
        attempts=attempt.attempts,
        due_at=attempt.due_at,
        first_at=attempt.first_at,
        last_at=attempt.last_at,
        error=attempt.error,
    )
    return Settled(after) if isinstance(verdict, Again) else Settled(after, failure)


def attempt_of(delivery: Delivery) -> Attempt | None:
    """The attempts counted so far, None before the first."""
    if not delivery.attempts:
        return None
    return Attempt(delivery.attempts, delivery.due_at, delivery.first_at, delivery.last_at, delivery.error)


def retry_after(value: str, now: float) -> float:
    """The seconds that a `Retry-After` header asks for (RFC 9110 §10.2.3), 0 for one that cannot be read."""
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        at: datetime = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, at.timestamp() - now)
