"""The worker processes that there are, and what is left of those that were."""

from collections.abc import Sequence

from gateway.admin.readings import Reading, lasting, merged
from gateway.workers.process import Process


class Fleet:
    """Outlives the actors. `current`: by number, those that are ready and to stay."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.current: dict[int, Process] = {}
        self._alive: list[Process] = []
        self._gone: list[Reading] = []

    @property
    def alive(self) -> Sequence[Process]:
        """All that run, those that are on their way out too."""
        return tuple(self._alive)

    @property
    def gone(self) -> Sequence[Reading]:
        """What those counted that run no more, as last known: a sum must not fall."""
        return self._gone

    def started(self, process: Process) -> None:
        self._alive.append(process)

    def ended(self, process: Process) -> None:
        """May be told more than once."""
        if process in self._alive:
            self._alive.remove(process)
            self._gone = merged((self._gone, lasting(process.readings)))
        for number, current in tuple(self.current.items()):
            if current is process:
                del self.current[number]
