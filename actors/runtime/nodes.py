"""From the declaration of a tree to its nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.runtime.cell import Cell
from actors.runtime.dynamic import DynamicNode
from actors.runtime.pool import PoolNode
from actors.runtime.spec import Child, DynamicSupervisor, Pool, Spec, Supervisor
from actors.runtime.supervision import Node, SupervisorNode

if TYPE_CHECKING:
    from actors.runtime.system import System


def build(spec: Spec, parent: SupervisorNode, system: System) -> Node:
    """The node of *spec*, known to *system* by its id, with all that is below it."""
    node: Node
    match spec:
        case Child():
            node = Cell(spec, parent, system)
        case Supervisor():
            node = SupervisorNode(spec, parent, system, build)
        case Pool():
            node = PoolNode(spec, parent, system, build)
        case DynamicSupervisor():
            node = DynamicNode(spec, parent, system, build)
    system.register(node)
    return node
