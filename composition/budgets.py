"""How long each actor may take to stop, so that all of them together keep the process's deadline. Pure."""

from dataclasses import replace
from typing import TypeVar

from actors.runtime import Child, Supervisor

N = TypeVar("N")


def within(tree: Supervisor, deadline: float) -> Supervisor:
    """*tree* with its children's `shutdown` as shares: together they are *deadline* seconds at most.

    Actors stop one after the other, so budgets that add up to more would leave none to those that stop last, and
    these are the stores.
    """
    total = sum(node.shutdown for node in tree.walk() if isinstance(node, Child))
    return _scaled(tree, min(1.0, deadline / total))


def _scaled(node: N, factor: float) -> N:
    if isinstance(node, Supervisor):
        return replace(node, children=[_scaled(child, factor) for child in node.children])
    if isinstance(node, Child):
        return replace(node, shutdown=node.shutdown * factor)
    return node
