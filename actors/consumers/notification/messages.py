"""What `deliveries` and the actors of its endpoints understand."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Wake:
    """Tell: there may be something due."""


@dataclass(frozen=True, slots=True)
class Work:
    """Tell, to an endpoint's actor: something is due for it."""


@dataclass(frozen=True, slots=True)
class Rested:
    """Tell: *endpoint* has nothing due any more, or asked for a pause until *until* (Unix seconds)."""

    endpoint: str
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Backlog:
    """→ `Waiting`. `Reject` carries the store's error."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is still to be delivered: how many deliveries, for how many seconds the one that has waited longest has
    waited (0: there is none), and how many endpoints are in each state (`working`, `held` by their Retry-After,
    `resting`)."""

    deliveries: int
    oldest: float = 0.0
    endpoints: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reset:
    """→ True when a dead delivery of that id is pending again, with no attempts counted. `Reject` carries
    the store's error."""

    id: str
