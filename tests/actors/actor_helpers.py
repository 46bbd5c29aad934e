"""Small trees for actor tests: the actor under test beside scripted neighbours."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from actors.metrics import Counter, Metrics
from actors.runtime import Actor, Child, Mailbox, Supervisor, System, open_system

MAILBOX = Mailbox(1024)


class Scripted(Actor[Any]):
    """A neighbour that answers with a function, each message in a task of its own, and remembers what it was asked."""

    def __init__(self, answer: Callable[[Any], Awaitable[Any]], seen: list[Any]) -> None:
        self._answer = answer
        self._seen = seen

    def handle(self, message: Any) -> Any:
        self._seen.append(message)
        later = self.later()
        self.spawn(self._run, message, later)
        return later

    async def _run(self, message: Any, later: Any) -> None:
        try:
            result = await self._answer(message)
        except Exception as error:
            later.fail(error)
        else:
            later.answer(result)


def child(id: str, factory: Callable[[], Actor[Any]], *, retry: bool = True, shutdown: float = 5.0) -> Child:
    return Child(id, factory, mailbox=MAILBOX, on_crash="retry_once" if retry else "fail", shutdown=shutdown)


@asynccontextmanager
async def tree(*children: Child) -> AsyncIterator[System]:
    async with open_system(Supervisor("root", intensity=None, children=children)) as system:
        yield system


async def gather(*calls: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Run the calls at once; their results, or the exceptions they raised, in their order."""
    results: list[Any] = [None] * len(calls)

    async def run(index: int, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            results[index] = await call()
        except Exception as error:
            results[index] = error

    async with trio.open_nursery() as nursery:
        for index, call in enumerate(calls):
            nursery.start_soon(run, index, call)
    return results


def counts(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """The values of one counter family, {} while it does not exist."""
    for family in metrics.families():
        if family.name == name and isinstance(family, Counter):
            return family.values
    return {}
