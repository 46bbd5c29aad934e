"""Whether a consumer is stuck: there is more to read and nothing moves, or no partitions come. Pure.

Times are seconds of any monotonic clock.
"""

from collections.abc import Mapping

from backends.ports.events import Partition


class Progress:
    """*still*: how long a partition may stand still. *unassigned*: how long a rebalance may take."""

    def __init__(self, still: float, unassigned: float) -> None:
        self._still = still
        self._unassigned = unassigned
        self._since: dict[Partition, tuple[int, float]] = {}
        """Where each partition that has more to read stands, and since when."""
        self._rejoining_since: float | None = None

    def rejoining(self, now: float) -> None:
        """The partitions were given back; they, or others, come with `joined`."""
        self._rejoining_since = now
        self._since.clear()

    def joined(self) -> None:
        self._rejoining_since = None

    def away(self, now: float) -> None:
        """The brokers do not answer: nothing can move, and that is nobody's fault."""
        self._since.clear()
        if self._rejoining_since is not None:
            self._rejoining_since = now

    def look(self, behind: Mapping[Partition, int], now: float) -> str:
        """Given the positions of all partitions that have more to read: why it is stuck, "" if it is not."""
        if self._rejoining_since is not None:
            waited = now - self._rejoining_since
            return f"no partitions for {waited:.0f} s" if waited > self._unassigned else ""
        self._since = {
            partition: (position, self._since[partition][1])
            if self._since.get(partition, (None,))[0] == position
            else (position, now)
            for partition, position in behind.items()
        }
        for (topic, number), (position, since) in self._since.items():
            if now - since > self._still:
                return f"{topic}/{number} stands at {position} for {now - since:.0f} s though there is more"
        return ""
