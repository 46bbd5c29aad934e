"""Where restarting no longer helps: to the supervisor above, and from the root to the program."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import Backoff, SupervisorGaveUp, System
from tests.runtime.support import (
    EPSILON,
    Asking,
    Boom,
    Crash,
    Echo,
    Hold,
    Journal,
    Run,
    Scripted,
    child,
    open_system,
    state_of,
    tell_for_ever,
    tree,
)

AT_ONCE = Backoff(first=0.0, min=0.0, max=0.0)


@pytest.mark.usefixtures("schedule")
async def test_a_supervisor_that_gives_up_is_restarted_with_all_of_its_children(autojump_clock: MockClock) -> None:
    journal = Journal()
    inner = tree(child("b", journal), child("c", journal), id="inner", intensity=0)
    async with open_system(tree(child("a", journal), inner, child("d", journal)), journal) as system:
        await system.ref("b").tell(Crash())
        await wait_all_tasks_blocked()
        assert {id: state_of(system, id)["incarnation"] for id in ("a", "inner", "b", "c", "d")} == {
            "a": 1,
            "inner": 2,
            "b": 2,
            "c": 2,
            "d": 1,
        }
        assert await system.ref("c").ask(Echo(1)) == 1
    assert [exit.next for exit in journal.exits("b")] == ["escalate"]
    assert [(exit.exit.kind, exit.next) for exit in journal.exits("inner")] == [("gave_up", "restart")]


async def test_a_supervisor_stops_its_children_in_reverse_order_before_it_escalates(autojump_clock: MockClock) -> None:
    async def take_a_second(_actor: Scripted) -> None:
        await trio.sleep(1)

    journal = Journal()
    inner = tree(*(child(id, journal, stopping=take_a_second) for id in "abc"), id="inner", intensity=0)
    async with open_system(tree(inner)) as system:
        await system.ref("b").tell(Crash())
        await trio.sleep(10)
        assert journal.entries[6:13] == [
            (0.0, "stop b"),
            (1.0, "gone b"),
            (1.0, "stop c"),
            (2.0, "gone c"),
            (2.0, "stop a"),
            (3.0, "gone a"),
            (3.0, "start a"),
        ]


async def test_budgets_multiply_by_level(autojump_clock: MockClock) -> None:
    journal = Journal()
    inner = tree(child("a", journal, backoff=AT_ONCE), id="inner", intensity=2, backoff=AT_ONCE)
    with pytest.raises(SupervisorGaveUp):
        async with open_system(tree(inner, intensity=1)) as system:
            await tell_for_ever(system, "a", *(Crash() for _ in range(6)))
    assert len(journal.times("start a")) == (2 + 1) * (1 + 1)


async def test_a_restarted_supervisor_starts_with_a_clean_record(autojump_clock: MockClock) -> None:
    inner = tree(child("a", Journal(), backoff=AT_ONCE), id="inner", intensity=1, backoff=AT_ONCE)
    async with open_system(tree(inner)) as system:
        for _ in range(3):
            await system.ref("a").tell(Crash())
        await wait_all_tasks_blocked()
        assert state_of(system, "inner")["incarnation"] == 2
        assert state_of(system, "a")["incarnation"] == 4


@pytest.mark.parametrize(("healthy", "delay"), [(15.25 - EPSILON, 0.5), (15.25, 0.0)])
async def test_a_supervisors_backoff_ends_after_a_healthy_time_too(
    healthy: float, delay: float, autojump_clock: MockClock
) -> None:
    journal = Journal()
    inner = tree(child("a", journal), id="inner", intensity=0)
    async with open_system(tree(inner), journal) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(healthy)
        await system.ref("a").tell(Crash())
        await wait_all_tasks_blocked()
    assert [exit.delay for exit in journal.exits("inner")] == [0.0, delay]


async def test_a_temporary_supervisor_that_gives_up_ends_with_all_below(autojump_clock: MockClock) -> None:
    inner = tree(child("a", Journal()), child("b", Journal()), id="inner", intensity=0, restart="temporary")
    async with open_system(tree(inner, child("c", Journal()))) as system:
        await system.ref("a").tell(Crash())
        await wait_all_tasks_blocked()
        assert [state_of(system, id)["state"] for id in ("inner", "a", "b", "c")] == ["stopped"] * 3 + ["ready"]


@pytest.mark.usefixtures("schedule")
async def test_the_root_cancels_the_body_and_raises_bare(autojump_clock: MockClock) -> None:
    journal = Journal()
    crash = Crash()

    async def body(system: System) -> None:
        try:
            await tell_for_ever(system, "a", crash)
        finally:
            journal.note("body cancelled")

    with pytest.raises(SupervisorGaveUp) as gave_up:
        async with open_system(tree(child("a", journal), child("b", journal), intensity=0)) as system:
            await body(system)
    assert gave_up.value.__cause__ is crash.error
    assert "root gave up: a failed once too often" in str(gave_up.value)
    assert journal.order("gone") == ["gone a", "gone b"]
    assert "body cancelled" in journal.order()


async def test_every_ask_is_answered_when_the_root_gives_up(autojump_clock: MockClock) -> None:
    asks: list[Asking] = []

    async def body(system: System, nursery: trio.Nursery) -> None:
        asks.extend(Asking(system, "b", message, nursery) for message in (Hold(), Echo(), Echo()))
        asks.extend(Asking(system, "a", message, nursery) for message in (Crash(), Echo(), Echo()))
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        with pytest.raises(SupervisorGaveUp):
            async with open_system(tree(child("a", Journal()), child("b", Journal()), intensity=0)) as system:
                await body(system, nursery)
        await wait_all_tasks_blocked()
        assert all(ask.ended for ask in asks)


@pytest.mark.parametrize(
    "error", [Boom("body"), KeyboardInterrupt(), ExceptionGroup("mine", [Boom("x")]), SystemExit(3)]
)
async def test_what_the_body_raises_comes_out_as_it_is(error: BaseException, autojump_clock: MockClock) -> None:
    journal = Journal()
    with pytest.raises(type(error)) as caught:
        async with open_system(tree(child("a", journal))):
            raise error
    assert caught.value is error
    assert journal.order("gone") == ["gone a"]


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("where", ["handler", "spawned", "on_start", "on_stop"])
async def test_an_interrupt_in_an_actor_ends_the_system_in_order(where: str, autojump_clock: MockClock) -> None:
    journal = Journal()
    interrupt = KeyboardInterrupt()

    async def raise_it(_actor: object = None) -> None:
        raise interrupt

    async def spawn_it(actor: Scripted) -> None:
        actor.spawn(raise_it)

    scripts: dict[str, Any] = {"on_start": {"starting": raise_it}, "on_stop": {"stopping": raise_it}}.get(where, {})
    messages = {"handler": Crash(interrupt), "spawned": Run(spawn_it), "on_stop": Crash()}
    root = tree(child("first", journal), child("a", journal, **scripts))
    with pytest.raises(KeyboardInterrupt) as caught:
        async with open_system(root) as system:
            await tell_for_ever(system, "a", messages[where])
    assert caught.value is interrupt
    assert journal.order("gone")[-1] == "gone first"
    assert len(journal.times("start a")) == 1  # the program ends; nothing is restarted


async def test_a_supervisor_whose_child_cannot_start_again_is_a_failed_restart(autojump_clock: MockClock) -> None:
    journal = Journal()

    async def only_once(_actor: Scripted) -> None:
        if len(journal.times("start b")) == 2:
            raise OSError("not yet")

    inner = tree(child("a", journal), child("b", journal, starting=only_once), id="inner", intensity=0)
    async with open_system(tree(inner), journal) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(5)
        assert [(exit.exit.kind, exit.delay) for exit in journal.exits("inner")] == [
            ("gave_up", 0.0),
            ("start_failed", 0.5),
        ]
        assert state_of(system, "inner")["state"] == "ready"


async def test_system_fail_during_the_start_ends_it_in_order(autojump_clock: MockClock) -> None:
    journal = Journal()
    error = Boom("from outside")

    async def fail_system(actor: Scripted) -> None:
        actor.system.fail(error)
        await trio.sleep(1)

    root = tree(child("a", journal), child("b", journal, starting=fail_system), child("c", journal))
    with pytest.raises(Boom) as caught:
        async with open_system(root):
            pytest.fail("the body must not run")
    assert caught.value is error
    assert journal.order() == ["start a", "ready a", "start b", "stop a", "gone a"]
