"""What `rate_limiter` understands."""

from dataclasses import dataclass

from backends.ports.limits import Buckets, Limit, LimitState, Verdict

__all__ = ["Check", "Limit", "LimitState", "Reload", "Verdict"]


@dataclass(frozen=True, slots=True)
class Check:
    """→ `Verdict`, or `Reject` of `LimitsUnavailable`. All of *buckets* are checked, then all are charged, or none.

    A bucket is (limit's name, caller's key): the limit's quota is looked up by its name.
    """

    buckets: Buckets


@dataclass(frozen=True, slots=True)
class Reload:
    """→ None. Replace the limits; buckets of limits that keep their name and numbers stay as they are."""

    limits: tuple[Limit, ...]
