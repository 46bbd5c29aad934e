"""What is wrong, or doubtful, with a tree, before any of it runs. Pure.

An error stops the tree from opening. A doubt is one line of warning with the two numbers that do not go together.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate

from actors.runtime.backoff import Backoff
from actors.runtime.spec import Child, DynamicSupervisor, Pool, Spec, Supervisor

SECONDS = 10.0
"""Giving up sooner than this gives what a child needs no time to come back."""


def validate(tree: Supervisor, shutdown_deadline: float) -> None:
    """Raise ValueError for a tree that could not work: duplicate ids, a budget above the deadline."""
    seen: set[str] = set()
    for node in tree.walk():
        if node.id in seen:
            raise ValueError(f"two nodes of the tree are called {node.id!r}; ids are unique in the whole tree")
        seen.add(node.id)
        child = node.child if isinstance(node, DynamicSupervisor) else node
        if isinstance(child, Child) and child.shutdown > shutdown_deadline:
            raise ValueError(
                f"{node.id}: shutdown={child.shutdown} s is above the system's shutdown_deadline={shutdown_deadline} s"
            )


def doubts(tree: Supervisor, shutdown_deadline: float) -> list[str]:
    """A line for each thing about *tree*, which is valid, that will hardly do what it says."""
    total = sum(node.shutdown for node in tree.walk() if isinstance(node, Child))
    found = []
    if total > shutdown_deadline + 1e-6:  # shares of a whole may add up to a little more than it
        found.append(
            f"the shutdown budgets of all children are {total:g} s together, above the system's "
            f"shutdown_deadline={shutdown_deadline:g} s: if several need theirs, those that stop last are cut off"
        )
    for supervisor in tree.walk():
        found += _doubts_about_restarts(supervisor)
    return found


def _doubts_about_restarts(node: Spec) -> Iterator[str]:
    """Of one supervisor: its intensity beside the backoffs of the actors it restarts."""
    if isinstance(node, Child) or not node.intensity:  # with 0 nothing is ever restarted
        return
    for backoff, ids in _restarted(node).items():
        if _are_defaults(node.intensity, node.period, backoff):
            continue  # nobody chose these; what they do together is documented
        most, after = outlook(backoff, node.intensity, node.period)
        which = ids[0] if len(ids) == 1 else f"{ids[0]} (and {len(ids) - 1} more)"
        if after is None:
            yield (
                f"{node.id} never gives up {which}, however long it keeps failing: its backoff lets at most {most} "
                f"failures into period={node.period:g} s, and intensity={node.intensity} allows them; "
                "intensity=None says so"
            )
        elif after < SECONDS:
            yield (
                f"{node.id} gives up {after:g} s after {which} begins to fail at every start: with its backoff, "
                f"intensity={node.intensity} in period={node.period:g} s is exceeded that soon"
            )


def _are_defaults(intensity: int, period: float, backoff: Backoff) -> bool:
    default = Supervisor("")
    return (intensity, period, replace(backoff, jitter=0.0)) == (
        default.intensity,
        default.period,
        replace(default.backoff, jitter=0.0),
    )


def _restarted(node: Supervisor | Pool | DynamicSupervisor) -> dict[Backoff, list[str]]:
    """The ids of the actors that it restarts, by their backoff."""
    found: dict[Backoff, list[str]] = {}
    match node:
        case Supervisor():
            for child in node.children:
                if isinstance(child, Child) and child.restart != "temporary":
                    found.setdefault(child.backoff, []).append(child.id)
        case Pool():
            found[node.backoff] = ["a worker"]
        case DynamicSupervisor(child=Child(restart=restart, backoff=backoff)):
            if restart != "temporary":
                found[backoff] = ["a child"]
        case DynamicSupervisor():
            found[Backoff()] = ["a child"]
    return found


def outlook(backoff: Backoff, intensity: int, period: float) -> tuple[int, float | None]:
    """Of a child that fails as soon as it starts, without jitter: the most failures in any *period*, counted no
    further than one above *intensity*; and the seconds after which that is exceeded, None: never."""
    # After 32 doublings at most all waits are equal; then so many more fill a window.
    waits = (backoff.delay(number, 0.0) for number in range(1, intensity + 40))
    most = 0
    window: deque[float] = deque()
    for now in accumulate(waits, initial=0.0):
        while window and window[0] < now - period:
            window.popleft()
        window.append(now)
        most = max(most, len(window))
        if most > intensity:
            return most, now
    return most, None
