"""Gather what comes while one round trip is under way into the next one."""

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Lane(Generic[T]):
    """One task at a time runs *run* on all that was added meanwhile, at most *limit* items at once.

    *spawn*: `Actor.spawn`; the first round trip begins after the message in hand, so what a batch adds goes together.
    """

    def __init__(
        self, spawn: Callable[..., None], run: Callable[[list[T]], Awaitable[Any]], *, limit: int = 256
    ) -> None:
        self._spawn = spawn
        self._run = run
        self._limit = limit
        self._waiting: list[T] = []
        self._running = False

    def add(self, item: T) -> None:
        self._waiting.append(item)
        if not self._running:
            self._running = True
            self._spawn(self._drain)

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
            await self._run(batch)
        self._running = False
