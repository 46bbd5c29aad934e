"""What `cache_manager` understands.

A hit never waits for a miss: `GetMany` answers at once from memory, `Load` is the slow path.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

USER_PROFILE = "user_profile"
TOKEN_VALIDATION = "token_validation"  # noqa: S105 - a cache kind
CONFIGURATION = "configuration"


class Missing(Enum):
    """Two answers of `GetMany` that are no value."""

    MISS = "miss"
    """Not known here: ask `Load`."""
    ABSENT = "absent"
    """Known not to exist (a negative entry)."""


MISS: Final = Missing.MISS
ABSENT: Final = Missing.ABSENT


@dataclass(frozen=True, slots=True)
class GetMany:
    """→ list of value | ABSENT | MISS, one a key, at once."""

    kind: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """→ value | ABSENT. One load a key at a time; others that ask meanwhile share its result.

    `Reject` carries the loader's error; errors are never cached. *secret*: what the loader needs and the key only
    names, such as the token behind a digest. It is forgotten when the load ends, and no `repr` shows it.
    """

    kind: str
    key: str
    secret: bytes | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Invalidate:
    """→ how many entries were evicted. A load under way for one of *keys* is answered but not stored."""

    keys: tuple[tuple[str, str], ...]
    """(kind, key) pairs."""


@dataclass(frozen=True, slots=True)
class FlushAll:
    """→ None. Evicts everything: the invalidation stream was lost for a while."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a loader returns: the value (None: absent), and the longest it may be kept (s; None: its kind's TTL)."""

    value: Any
    max_age: float | None = None
