"""What is said about a tree before any of it runs: an error, or one line of warning with two numbers."""

from typing import Any

import pytest
from trio.testing import MockClock

from actors.runtime import Actor, Backoff, Child, DynamicSupervisor, Mailbox, Pool, Supervisor, SupervisorGaveUp
from actors.runtime.validation import doubts, outlook
from tests.runtime.support import Crash, Journal, child, open_system, tell_for_ever, tree

AT_ONCE = Backoff(first=0.0, min=0.0, max=0.0)
SLOW = Backoff(first=5.0, min=5.0, max=30.0)
BOX = Mailbox(1)


def actor(id: str, **options: Any) -> Child:
    return Child(id, Actor, mailbox=BOX, **options)


def root(*children: Any, **options: Any) -> Supervisor:
    return Supervisor("root", children=children, **options)


@pytest.mark.parametrize(
    "nodes",
    [
        [actor("a"), actor("a")],
        [actor("root")],
        [actor("a"), Supervisor("s", children=[actor("a")])],
        [Pool("p", Actor, size=2, mailbox=BOX), actor("p.2")],
        [DynamicSupervisor("a", Actor, mailbox=BOX, max_children=1), actor("a")],
    ],
)
async def test_ids_are_unique_in_the_whole_tree(nodes: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"two nodes of the tree are called '.*'; ids are unique in the whole tree"):
        async with open_system(root(*nodes)):
            pytest.fail("it must not open")


@pytest.mark.parametrize(
    "node",
    [
        actor("a", shutdown=5.001),
        Pool("a", Actor, size=1, mailbox=BOX, shutdown=5.001),
        DynamicSupervisor("a", actor("template", shutdown=5.001), max_children=1),
        Supervisor("s", children=[actor("a", shutdown=5.001)]),
    ],
)
async def test_one_budget_above_the_deadline_is_an_error(node: Any) -> None:
    with pytest.raises(ValueError, match=r"a(\.1)?: shutdown=5\.001 s is above the system's shutdown_deadline=5\.0 s"):
        async with open_system(root(node), shutdown_deadline=5.0):
            pytest.fail("it must not open")


async def test_a_budget_of_just_the_deadline_is_none(caplog: pytest.LogCaptureFixture) -> None:
    async with open_system(root(actor("a", shutdown=5.0)), shutdown_deadline=5.0):
        assert caplog.records == []


async def test_budgets_that_together_are_above_the_deadline_are_one_line_and_the_tree_opens(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inner = Supervisor("inner", children=[actor("b", shutdown=2.0), Pool("p", Actor, size=3, mailbox=BOX)])
    async with open_system(root(actor("a"), inner), shutdown_deadline=21.5):
        pass
    (line,) = caplog.records
    assert line.levelname == "WARNING"
    assert line.getMessage() == (
        "the shutdown budgets of all children are 22 s together, above the system's shutdown_deadline=21.5 s: "
        "if several need theirs, those that stop last are cut off"
    )
    caplog.clear()
    async with open_system(root(actor("a"), inner), shutdown_deadline=22.0):
        assert caplog.records == []


async def test_a_deadline_without_end_is_above_all_budgets() -> None:
    assert doubts(root(actor("a"), actor("b")), float("inf")) == []


@pytest.mark.parametrize(
    ("backoff", "intensity", "period", "expected"),
    [
        (Backoff(), 3, 5.0, (4, 1.5)),  # 0, 0, 0.5, 1.5
        (Backoff(first=0.2, min=0.2), 3, 5.0, (4, 0.8)),  # 0, 0.2, 0.4, 0.8
        (Backoff(first=1.0, min=1.0), 3, 5.0, (4, 4.0)),
        (Backoff(first=2.0, min=2.0), 3, 5.0, (3, None)),  # 0, 2, 4, 8
        (Backoff(first=9.0, min=1.0, max=1.0), 3, 5.0, (4, 12.0)),
        (Backoff(first=0.0, min=5.0, max=5.0), 2, 5.0, (3, 5.0)),  # 0, 0, 5: the window includes its ends
        (Backoff(first=0.0, min=5.001, max=6.0), 2, 5.0, (2, None)),
        (Backoff(first=3.0, min=1.0, max=1.0), 3, 3.5, (4, 6.0)),  # 0, 3, 4, 5, 6: only the first has left the window
        (Backoff(), 10, 60.0, (8, None)),
        (AT_ONCE, 100, 1.0, (101, 0.0)),
        (Backoff(first=0.0, min=0.001, max=1.0), 20, 19.5, (21, 10.023)),
    ],
)
def test_the_outlook_of_a_child_that_always_fails(
    backoff: Backoff, intensity: int, period: float, expected: tuple[int, float | None]
) -> None:
    most, after = outlook(backoff, intensity, period)
    assert (most, after) == (expected[0], None if expected[1] is None else pytest.approx(expected[1]))


@pytest.mark.parametrize("backoff", [Backoff(jitter=0.0), Backoff(first=1.0, min=1.0, max=1.0, jitter=0.0)])
async def test_the_outlook_is_what_happens(backoff: Backoff, autojump_clock: MockClock) -> None:
    journal = Journal()
    with pytest.raises(SupervisorGaveUp):
        async with open_system(tree(child("a", journal, backoff=backoff)), journal) as system:
            await tell_for_ever(system, "a", *(Crash() for _ in range(9)))
    most, after = outlook(backoff, 3, 5.0)
    assert len(journal.times("start a")) == most
    assert journal.times("gone a")[-1] == after


async def test_an_intensity_that_no_failure_can_exceed_is_one_line_and_the_tree_opens(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_system(root(actor("a", backoff=SLOW), actor("b", backoff=SLOW), actor("c"))):
        pass
    (line,) = caplog.records
    assert line.getMessage() == (
        "root never gives up a (and 1 more), however long it keeps failing: its backoff lets at most 2 failures into "
        "period=5 s, and intensity=3 allows them; intensity=None says so"
    )


async def test_one_that_is_exceeded_within_seconds_is_one_line_and_the_tree_opens(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_system(root(actor("a", backoff=Backoff(min=0.2)))):
        pass
    (line,) = caplog.records
    assert line.getMessage() == (
        "root gives up 0.6 s after a begins to fail at every start: with its backoff, intensity=3 in period=5 s is "
        "exceeded that soon"
    )


@pytest.mark.parametrize(
    "node",
    [
        Pool("p", Actor, size=2, mailbox=BOX, backoff=SLOW),
        DynamicSupervisor("d", actor("x", backoff=SLOW), max_children=2),
        DynamicSupervisor("d", Actor, mailbox=BOX, max_children=2, intensity=20),
        Supervisor("s", children=[actor("a")], intensity=4),
        Supervisor("s", children=[actor("a")], period=6.0),
    ],
)
def test_every_kind_of_supervisor_is_looked_at(node: Any) -> None:
    assert [line.partition(" ")[0] for line in doubts(root(node), 25.0)] == [node.id]


@pytest.mark.parametrize(
    "node",
    [
        actor("a"),  # defaults beside defaults
        actor("a", backoff=Backoff(jitter=0.0)),
        Supervisor("s", intensity=None, children=[actor("a", backoff=SLOW)]),
        Supervisor("s", intensity=0, children=[actor("a", backoff=SLOW)]),
        Supervisor(
            "s", intensity=1, period=20.0, children=[actor("a", backoff=Backoff(first=10.0))]
        ),  # ten seconds will do
        Supervisor("s", intensity=9, children=[actor("a", restart="temporary", backoff=SLOW)]),
        Supervisor("s", intensity=5, period=60.0, children=[actor("a", backoff=Backoff(min=1.0, max=8.0))]),
        DynamicSupervisor("d", actor("x", backoff=SLOW, restart="temporary"), max_children=2),
        DynamicSupervisor("d", Actor, mailbox=BOX, max_children=2),
        Pool("p", Actor, size=2, mailbox=BOX),
    ],
)
def test_numbers_that_go_together_are_not_mentioned(node: Any) -> None:
    assert doubts(root(node), 25.0) == []
