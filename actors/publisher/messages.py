"""What `publisher` understands: audits and other events that no transaction carries."""

from dataclasses import dataclass

from backends.ports.events import Event


@dataclass(frozen=True, slots=True)
class Publish:
    """Tell: publish soon, in a batch. At kill -9 at most the last 50 ms of these are lost."""

    event: Event


@dataclass(frozen=True, slots=True)
class Flush:
    """→ None, once all that was published before is in the log."""
