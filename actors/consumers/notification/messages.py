"""What `deliveries` and the actors of its endpoints understand."""

from dataclasses import dataclass


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
    """→ int: how many deliveries are still to be made. `Reject` carries the store's error."""


@dataclass(frozen=True, slots=True)
class Reset:
    """→ True when a dead delivery of that id is pending again, with no attempts counted. `Reject` carries
    the store's error."""

    id: str
