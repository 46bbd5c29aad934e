"""Each actor's share of the time that the process has to stop."""

import pytest

from actors.runtime import Actor, Child, DynamicSupervisor, Mailbox, Supervisor
from actors.runtime.validation import doubts
from composition.budgets import within


def child(id: str, shutdown: float = 5.0) -> Child:
    return Child(id, Actor, mailbox=Mailbox(1), shutdown=shutdown)


def budgets(tree: Supervisor) -> dict[str, float]:
    return {node.id: node.shutdown for node in tree.walk() if isinstance(node, Child)}


def test_all_together_keep_the_deadline_in_the_shares_that_they_were_given():
    tree = Supervisor("root", children=[child("a", 20.0), Supervisor("inner", children=[child("b"), child("c")])])
    assert budgets(within(tree, 10.0)) == {
        "a": pytest.approx(20 / 3),
        "b": pytest.approx(5 / 3),
        "c": pytest.approx(5 / 3),
    }
    assert doubts(within(tree, 10.0), 10.0) == []


def test_budgets_that_fit_stay_as_they_are():
    tree = Supervisor("root", children=[child("a"), DynamicSupervisor("d", Actor, mailbox=Mailbox(1), max_children=3)])
    assert within(tree, 25.0) == tree
