"""What `rate_limiter` understands."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """→ `Verdict`. All of *buckets* are checked, then all are charged, or none.

    A bucket is (limit's name, caller's key): the limit's quota is looked up by its name.
    """

    buckets: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class LimitState:
    """One limit after the check. `remaining`: how many may come at once; `reset_s`: until the bucket is
    full again, rounded up; `quota` per `window_s`."""

    name: str
    quota: int
    window_s: int
    remaining: int
    reset_s: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """`retry_after_s` 0: admitted. Else whole seconds until every violated limit would admit again."""

    retry_after_s: int
    violated: tuple[str, ...]
    states: tuple[LimitState, ...]


@dataclass(frozen=True, slots=True)
class Reload:
    """→ None. Replace the limits; buckets of limits that keep their name and numbers stay as they are."""

    limits: tuple["Limit", ...]


@dataclass(frozen=True, slots=True)
class Limit:
    """A configured limit. `quota` requests per `window_s` seconds sustained, exactly `burst` at once."""

    name: str
    key: str
    """`token`, `address` or `subject`."""
    quota: int
    window_s: int
    burst: int
    fail: str = "local"
