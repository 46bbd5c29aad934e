"""Children that come and go at run time, each with a budget of its own."""

from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import (
    ActorStopped,
    Backoff,
    Child,
    DynamicRef,
    DynamicSupervisor,
    Mailbox,
    StartFailed,
    Supervisor,
    SupervisorGaveUp,
    System,
    TooManyChildren,
)
from tests.runtime.support import Asking, Boom, Crash, Echo, End, Journal, Run, Scripted, open_system, state_of, tree

AT_ONCE = Backoff(min=0.0, max=0.0)


class Numbered(Scripted):
    """Its id comes with `start_child`."""

    def __init__(self, journal: Journal, id: str, **options: Any) -> None:
        super().__init__(id, journal, **options)


def dynamic(journal: Journal, **options: Any) -> DynamicSupervisor:
    child = {"mailbox": Mailbox(16), "backoff": AT_ONCE} | options.pop("child", {})
    options.setdefault("max_children", 4)
    script = options.pop("script", {})
    return DynamicSupervisor("many", Child("template", partial(Numbered, journal, **script), **child), **options)


async def start(system: System, *ids: str) -> DynamicRef:
    handle = system.dynamic("many")
    for id in ids:
        await handle.start_child(id, id)
    return handle


async def test_children_are_started_with_their_arguments_and_found_by_their_ids(autojump_clock: MockClock) -> None:
    async def slowly(_actor: Scripted) -> None:
        await trio.sleep(1)

    journal = Journal()
    async with open_system(tree(dynamic(journal, script={"starting": slowly})), journal) as system:
        ref = await system.dynamic("many").start_child("x", "x")
        assert journal.entries == [(0, "start x"), (1, "ready x")]
        assert await ref.ask(Echo(1)) == await system.ref("x").ask(Echo(1)) == 1
        assert system.dynamic("many").children() == ["x"]


async def test_a_bare_factory_needs_a_mailbox(autojump_clock: MockClock) -> None:
    journal = Journal()
    with pytest.raises(ValueError, match="a factory and a mailbox"):
        DynamicSupervisor("many", partial(Numbered, journal), max_children=1)
    root = tree(DynamicSupervisor("many", partial(Numbered, journal), max_children=1, mailbox=Mailbox(3)))
    async with open_system(root) as system:
        await start(system, "x")
        assert state_of(system, "x")["mailbox_capacity"] == 3


async def test_actors_start_children_through_lookup(autojump_clock: MockClock) -> None:
    async def start_one(actor: Scripted) -> Any:
        handle = actor.lookup("many")
        assert handle is actor.dynamic("many")
        ref = await actor.dynamic("many").start_child("y", "y")
        return await ref.ask(Echo("from y"))

    async with open_system(tree(dynamic(Journal()))) as system:
        await start(system, "x")
        assert await system.ref("x").ask(Run(start_one)) == "from y"


async def test_there_are_no_more_than_max_children(autojump_clock: MockClock) -> None:
    async with open_system(tree(dynamic(Journal(), max_children=2))) as system:
        handle = await start(system, "x", "y")
        with pytest.raises(TooManyChildren):
            await handle.start_child("z", "z")
        await handle.stop_child("x")
        await handle.start_child("z", "z")
        assert handle.children() == ["y", "z"]


async def test_ids_are_unique_in_the_whole_tree_while_they_are_in_it(autojump_clock: MockClock) -> None:
    async with open_system(tree(dynamic(Journal()))) as system:
        handle = await start(system, "x")
        for taken in ("x", "many", "root"):
            with pytest.raises(ValueError, match=f"{taken!r} in the tree"):
                await handle.start_child(taken, taken)
        await handle.stop_child("x")
        await handle.start_child("x", "x")


async def test_a_stopped_child_handles_what_is_queued_and_is_gone(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(dynamic(journal))) as system, trio.open_nursery() as nursery:
        handle = await start(system, "x")
        ref = system.ref("x")
        asks = [Asking(system, "x", Echo(n, after=1), nursery) for n in range(3)]
        await wait_all_tasks_blocked()
        await handle.stop_child("x")
        await wait_all_tasks_blocked()
        assert [ask.value for ask in asks] == [0, 1, 2]
        assert journal.order("gone") == ["gone x"]
        assert handle.children() == []
        assert state_of(system, "many")["children"] == []
        with pytest.raises(ActorStopped):
            await ref.ask(Echo())
        with pytest.raises(LookupError):
            system.ref("x")
        with pytest.raises(LookupError, match="no child 'x'"):
            await handle.stop_child("x")


async def test_children_stop_in_reverse_order_of_their_starts(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(dynamic(journal))) as system:
        await start(system, "z", "x", "y")
    assert journal.order("stop") == ["stop y", "stop x", "stop z"]


async def test_they_stop_within_their_budgets(autojump_clock: MockClock) -> None:
    async def for_ever(_actor: Scripted) -> None:
        await trio.sleep_forever()

    root = tree(dynamic(Journal(), child={"shutdown": 2.0}, script={"stopping": for_ever}))
    async with open_system(root) as system:
        await start(system, "x", "y", "z")
        began = trio.current_time()
    assert trio.current_time() - began == 6.0


@pytest.mark.usefixtures("schedule")
async def test_a_child_over_its_budget_is_given_up_alone(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(dynamic(journal, intensity=2)), journal) as system:
        handle = await start(system, "x", "y")
        ref = system.ref("x")
        for _ in range(2):
            await ref.tell(Crash())
            await wait_all_tasks_blocked()
        assert await ref.ask(Echo("still there")) == "still there"
        await ref.tell(Crash())
        await wait_all_tasks_blocked()
        assert [exit.next for exit in journal.exits("x")] == ["restart", "restart", "give_up"]
        with pytest.raises(ActorStopped):
            await ref.ask(Echo())
        assert handle.children() == ["y"]
        assert journal.times("start y") == [0]
        await handle.start_child("x", "x")  # and may come again, with a clean record
        assert await system.ref("x").ask(Echo(1)) == 1


async def test_each_child_has_a_budget_of_its_own(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(dynamic(journal, intensity=1)), journal) as system:
        handle = await start(system, "x", "y", "z")
        for id in ("x", "y", "z"):
            await system.ref(id).tell(Crash())
        await wait_all_tasks_blocked()
        assert handle.children() == ["x", "y", "z"]


async def test_a_shared_budget_ends_the_supervisor(autojump_clock: MockClock) -> None:
    journal = Journal()
    with pytest.raises(SupervisorGaveUp):
        async with open_system(tree(dynamic(journal, budget="shared", intensity=1), intensity=0), journal) as system:
            await crash_both(system)
    assert [exit.next for exit in journal.exits("y")] == ["escalate"]


async def crash_both(system: System) -> None:
    await start(system, "x", "y")
    for id in ("x", "y"):
        await system.ref(id).tell(Crash())
        await wait_all_tasks_blocked()
    await trio.sleep(1)


@pytest.mark.parametrize(("restart", "message", "stays"), [("transient", End(), False), ("temporary", Crash(), False)])
async def test_a_child_that_is_not_restarted_is_gone(
    restart: str, message: Any, stays: bool, autojump_clock: MockClock
) -> None:
    async with open_system(tree(dynamic(Journal(), child={"restart": restart}))) as system:
        handle = await start(system, "x")
        await system.ref("x").tell(message)
        await wait_all_tasks_blocked()
        assert (handle.children() == ["x"]) is stays


async def test_a_start_that_fails_leaves_nothing(autojump_clock: MockClock) -> None:
    async def fail(_actor: Scripted) -> None:
        raise Boom("no")

    journal = Journal()
    async with open_system(tree(dynamic(journal, script={"starting": fail})), journal) as system:
        with pytest.raises(StartFailed) as failed:
            await system.dynamic("many").start_child("x", "x")
        assert isinstance(failed.value.__cause__, Boom)
        assert system.dynamic("many").children() == []
        assert [(exit.exit.kind, exit.next) for exit in journal.exits("x")] == [("start_failed", "end")]
        assert state_of(system, "many")["state"] == "ready"


async def test_a_cancelled_start_is_undone(autojump_clock: MockClock) -> None:
    async def for_ever(_actor: Scripted) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            journal.note("undone x")

    journal = Journal()
    async with open_system(tree(dynamic(journal, script={"starting": for_ever})), journal) as system:
        with trio.move_on_after(1):
            await system.dynamic("many").start_child("x", "x")
        assert not system.ref("x").try_tell(Echo())  # while that takes its time
        await trio.sleep(5)
        assert system.dynamic("many").children() == []
        assert journal.entries == [(0, "start x"), (2, "undone x")]


@pytest.mark.usefixtures("schedule")
async def test_a_stop_of_the_system_during_a_start(autojump_clock: MockClock) -> None:
    async def slowly(_actor: Scripted) -> None:
        await trio.sleep(5)

    errors: list[BaseException] = []

    async def start_slow(system: System) -> None:
        try:
            await system.dynamic("many").start_child("x", "x")
        except StartFailed as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        async with open_system(tree(dynamic(Journal(), script={"starting": slowly}))) as system:
            nursery.start_soon(start_slow, system)
            await trio.sleep(1)
        with pytest.raises(ActorStopped):
            await system.dynamic("many").start_child("y", "y")
    assert len(errors) == 1
    assert trio.current_time() == 1


async def test_a_restarted_dynamic_supervisor_begins_with_no_children(autojump_clock: MockClock) -> None:
    journal = Journal()
    crasher = Child("crasher", partial(Scripted, "crasher", journal), mailbox=Mailbox(4), backoff=AT_ONCE)
    async with open_system(tree(crasher, dynamic(journal), strategy="one_for_all")) as system:
        handle = await start(system, "x", "y")
        await system.ref("crasher").tell(Crash())
        await trio.sleep(1)
        assert handle.children() == []
        assert journal.order("stop") == ["stop crasher", "stop y", "stop x"]
        await handle.start_child("x", "x")


async def test_a_child_can_be_stopped_in_backoff(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(dynamic(journal, child={"backoff": Backoff(first=9)})), journal) as system:
        handle = await start(system, "x", "y")
        await system.ref("x").tell(Crash())
        await wait_all_tasks_blocked()
        await handle.stop_child("x")
        assert handle.children() == ["y"]
        await system.ref("y").tell(Crash())
        await trio.sleep(20)
        assert journal.times("start x") == [0]
        assert journal.times("start y") == [0, 9]


async def test_it_takes_no_messages(autojump_clock: MockClock) -> None:
    async with open_system(tree(dynamic(Journal()))) as system:
        for send in (system.ref("many").ask, system.ref("many").tell):
            with pytest.raises(TypeError, match="takes no Echo"):
                await send(Echo())
        with pytest.raises(TypeError):
            system.ref("many").try_tell(Echo())
        with pytest.raises(LookupError, match="no dynamic supervisor 'x' in the tree; there are: many"):
            system.dynamic("x")


async def test_its_end_is_for_good(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(dynamic(journal))) as system:
        handle = await start(system, "x", "y")
        await handle.stop()
        assert journal.order("gone") == ["gone y", "gone x"]
        with pytest.raises(ActorStopped):
            await handle.start_child("z", "z")


async def test_the_snapshot_shows_it(autojump_clock: MockClock) -> None:
    async with open_system(tree(dynamic(Journal()))) as system:
        await start(system, "x")
        node = state_of(system, "many")
        assert (node["kind"], node["max_children"], node["budget"]) == ("dynamic_supervisor", 4, "per_child")
        assert [child["id"] for child in node["children"]] == ["x"]


@pytest.mark.parametrize(
    ("options", "says"), [({"max_children": 0}, "at least 1"), ({"budget": "none"}, "budget must be one of")]
)
def test_a_wrong_declaration_is_refused(options: dict[str, Any], says: str) -> None:
    declared = {"max_children": 1, "mailbox": Mailbox(1)} | options
    with pytest.raises(ValueError, match=says):
        DynamicSupervisor("many", Scripted, **declared)


def test_it_is_part_of_the_declared_tree() -> None:
    declared = DynamicSupervisor("many", Scripted, max_children=1, mailbox=Mailbox(1))
    assert [node.id for node in Supervisor("root", children=[declared]).walk()] == ["root", "many"]
