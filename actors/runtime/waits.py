"""Who waits for whom: the asks that stand still in a handler, and the cycle that would never end.

An actor handles one message (or batch) at a time. While its handler awaits an ask, everything sent to it
waits; when the ask's target waits for this actor in turn, directly or through others, none of them moves again.
Found when the ask that closes the cycle is made (the wait-for graph of database locks: Gray and Reuter,
Transaction Processing, 1992, 7.11). An ask from a spawned task holds up no handler and is no edge.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from actors.runtime.inbox import Inbox
    from actors.runtime.incarnation import Incarnation

serving: ContextVar[Incarnation | None] = ContextVar("actors.runtime.serving", default=None)
"""The incarnation in whose handler this code may run; `held_up` says whether it does."""


def held_up() -> Inbox | None:
    """The cell whose handler stands still while the caller awaits, on_start and on_stop included.

    None outside of actors and in spawned tasks. Tasks of a nursery inside the handler count.
    """
    incarnation = serving.get()
    if incarnation is None:
        return None
    task = trio.lowlevel.current_task()
    while task is not incarnation.task:
        nursery = task.parent_nursery
        if nursery is None or nursery is incarnation.nursery:
            return None
        task = nursery.parent_task
    return incarnation.cell


def cycle(caller: Inbox, target: Inbox) -> list[str]:
    """The ids from *caller* to itself that an await of *caller* for *target* would close; empty: none."""
    ways: list[tuple[Inbox, list[str]]] = [(target, [caller.id, target.id])]
    seen: set[Inbox] = set()
    while ways:
        cell, way = ways.pop()
        if cell is caller:
            return way
        if cell not in seen:
            seen.add(cell)
            ways.extend((next, [*way, next.id]) for next in waited_for(cell))
    return []


def waited_for(cell: Inbox) -> list[Inbox]:
    """Those that *cell*'s handler waits for: that have not answered it, and need their own handler to do so."""
    return [
        target
        for envelope, target in cell.waits.items()
        if not (envelope.settled or envelope.abandoned or target.answers_later(envelope))
    ]
