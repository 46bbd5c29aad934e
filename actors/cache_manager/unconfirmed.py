"""Evictions that the second tier has not confirmed yet. Pure.

Until it has, what it keeps under those names may be old, so this instance neither reads nor fills them there.
"""

from collections.abc import Iterable
from typing import NamedTuple

from backends.ports.shared import Name


class Eviction(NamedTuple):
    """What one round trip is to evict: *names* (None: everything), as asked for up to *asked*."""

    names: tuple[Name, ...] | None
    asked: int


class Unconfirmed:
    """At most *limit* names; beyond that everything counts as unconfirmed, which one new epoch cures."""

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._asked = 0
        self._names: dict[Name, int] = {}
        """When each was last asked for. Asked for again while a round trip is under way, it needs another."""
        self._everything = 0
        """When everything was last asked for; 0: it is not."""

    def __len__(self) -> int:
        return len(self._names) + bool(self._everything)

    def holds(self, name: Name) -> bool:
        return self._everything > 0 or name in self._names

    def add(self, names: Iterable[Name]) -> None:
        self._asked += 1
        for name in names:
            self._names[name] = self._asked
        if len(self._names) > self._limit:
            self.add_everything()

    def add_everything(self) -> None:
        self._asked += 1
        self._everything = self._asked
        self._names.clear()

    def next(self, most: int) -> Eviction | None:
        """What to evict next, at most *most* names; None: nothing. It stays here until it is confirmed."""
        if self._everything:
            return Eviction(None, self._asked)
        if not self._names:
            return None
        return Eviction(tuple(name for name, _ in zip(self._names, range(most), strict=False)), self._asked)

    def confirm(self, done: Eviction) -> None:
        """The store has done it. What was asked for after it was taken stays."""
        if done.names is None:
            self._names = {name: asked for name, asked in self._names.items() if asked > done.asked}
            if self._everything <= done.asked:
                self._everything = 0
            return
        for name in done.names:
            if self._names.get(name, done.asked + 1) <= done.asked:
                del self._names[name]
