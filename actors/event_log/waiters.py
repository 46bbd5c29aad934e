"""Who waits for records of which topics. Pure bookkeeping, but for trio's Event."""

from collections.abc import Iterable

import trio


class Waiter:
    """One long poll. `wait` returns when one of its topics was touched since it last returned."""

    __slots__ = ("_event", "ended", "topics")

    def __init__(self, topics: frozenset[str]) -> None:
        self.topics = topics
        self.ended = False
        self._event = trio.Event()

    async def wait(self) -> None:
        await self._event.wait()
        self._event = trio.Event()

    def wake(self) -> None:
        self._event.set()

    def end(self) -> None:
        """Wait no longer: the poll answers with what there is."""
        self.ended = True
        self._event.set()


class Waiters:
    """The long polls by topic: touching a topic costs as much as it has waiters, and nothing without any."""

    def __init__(self) -> None:
        self._by_topic: dict[str, set[Waiter]] = {}

    def __len__(self) -> int:
        return len(set().union(*self._by_topic.values()))

    def add(self, waiter: Waiter) -> None:
        for topic in waiter.topics:
            self._by_topic.setdefault(topic, set()).add(waiter)

    def remove(self, waiter: Waiter) -> None:
        for topic in waiter.topics:
            waiters = self._by_topic[topic]
            waiters.discard(waiter)
            if not waiters:
                del self._by_topic[topic]

    def touch(self, topics: Iterable[str]) -> None:
        for topic in topics:
            for waiter in self._by_topic.get(topic, ()):
                waiter.wake()
