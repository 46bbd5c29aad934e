"""Share a fetch's limit among partitions so that none starves another. Pure but for the reading it is given."""

from collections.abc import Callable, Mapping

from backends.ports.events import Partition, Record

Take = Callable[[Partition, int, int], list[Record]]
"""(partition, first offset, most) → records in offset order."""


def fetch_fairly(positions: Mapping[Partition, int], limit: int, take: Take) -> list[Record]:
    """Up to *limit* records from *positions* on, in offset order within each partition.

    Every partition gets an equal share; what some leave goes to the others, again in equal shares. With
    more partitions than *limit*, those whose next record is the oldest come first: no record is passed
    over for ever, and no turn has to be remembered from one call to the next.
    """
    if limit <= 0 or not positions:
        return []
    fetched: list[Record] = []
    hungry = dict(positions)
    if limit < len(positions):
        heads = {partition: take(partition, offset, 1) for partition, offset in positions.items()}
        fetched = sorted((head for (head,) in filter(None, heads.values())), key=lambda head: head.timestamp_ms)
        hungry = {(head.topic, head.partition): head.offset + 1 for head in fetched}
    while hungry and len(fetched) < limit:
        share, left_over = divmod(limit - len(fetched), len(hungry))
        still_hungry: dict[Partition, int] = {}
        for index, (partition, offset) in enumerate(hungry.items()):
            most = share + (index < left_over)
            records = take(partition, offset, most) if most else []
            fetched += records
            if len(records) == most:  # also one that had to sit this round out
                still_hungry[partition] = records[-1].offset + 1 if records else offset
        hungry = still_hungry
    return fetched[:limit]
