"""The trace that a handler runs in: of its asker, or its own with a link to the sender's."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import Actor, Later, Mailbox, Trace, current_trace, use_trace
from tests.runtime.support import Crash, Echo, Journal, Run, Scripted, ScriptedBatch, child, open_system, tree

HERE = Trace(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7)


async def where(_actor: Any = None) -> Trace | None:
    return current_trace()


async def test_an_ask_is_handled_in_its_askers_trace(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        with use_trace(HERE):
            assert await system.ref("a").ask(Run(where)) is HERE
            assert await system.ref("a").ask(Run(where), timeout=1.0) is HERE
        assert await system.ref("a").ask(Run(where)) is None


async def test_it_reaches_whoever_the_handler_asks_and_spawns(autojump_clock: MockClock) -> None:
    async def spawn(actor: Scripted) -> Later:
        later = actor.later()

        async def task() -> None:
            later.answer(current_trace())

        actor.spawn(task)
        return later

    async def ask_b(actor: Scripted) -> list[Any]:
        return [await actor.lookup("b").ask(Run(where)), await actor.lookup("b").ask(Run(spawn))]

    async with open_system(tree(child("a", Journal()), child("b", Journal()))) as system:
        with use_trace(HERE):
            assert await system.ref("a").ask(Run(ask_b)) == [HERE, HERE]


@pytest.mark.parametrize("how", ["tell", "try_tell"])
async def test_a_tell_begins_a_trace_that_links_the_senders(how: str, autojump_clock: MockClock) -> None:
    seen: list[Trace | None] = []

    async def note(_actor: Scripted) -> None:
        seen.append(current_trace())

    async with open_system(tree(child("a", Journal()))) as system:
        with use_trace(HERE):
            for _ in range(2):
                if how == "tell":
                    await system.ref("a").tell(Run(note))
                else:
                    system.ref("a").try_tell(Run(note))
        await system.ref("a").tell(Run(note))
        await wait_all_tasks_blocked()
    first, second, none = seen
    assert none is None
    assert first is not None
    assert second is not None
    assert (first.link, second.link) == (HERE, HERE)
    assert len({HERE.trace_id, first.trace_id, second.trace_id}) == 3


async def test_a_timers_ticks_link_to_where_it_was_set(autojump_clock: MockClock) -> None:
    seen: list[Trace | None] = []

    async def note(_actor: Scripted) -> None:
        seen.append(current_trace())

    async def set_timer(actor: Scripted) -> None:
        actor.timer(1.0, Run(note), every=1.0)

    async with open_system(tree(child("a", Journal()))) as system:
        with use_trace(HERE):
            await system.ref("a").ask(Run(set_timer))
        await trio.sleep(2.5)
    assert [trace and trace.link for trace in seen] == [HERE, HERE]
    assert len({trace.trace_id for trace in seen if trace}) == 2


async def test_actors_that_tell_themselves_make_no_endless_chain(autojump_clock: MockClock) -> None:
    seen: list[Trace] = []

    async def again(actor: Scripted) -> None:
        trace = current_trace()
        assert trace is not None
        seen.append(trace)
        if len(seen) < 3:
            actor.ref.try_tell(Run(again))

    async with open_system(tree(child("a", Journal()))) as system:
        with use_trace(HERE):
            await system.ref("a").tell(Run(again))
        await wait_all_tasks_blocked()
    one, two, three = seen
    assert one.link == HERE
    assert two.link is not None
    assert three.link is not None
    assert (two.link.trace_id, three.link.trace_id) == (one.trace_id, two.trace_id)
    assert (two.link.link, three.link.link) == (None, None)


async def test_a_batch_knows_the_trace_of_each_message(autojump_clock: MockClock) -> None:
    class Traced(ScriptedBatch):
        async def handle_batch(self, messages: list[Any]) -> list[Any]:
            assert current_trace() is None
            return list(self.traces())

    answers: list[Any] = []
    traces = [HERE, HERE.child(), None]

    async def ask(system: Any, trace: Trace | None) -> None:
        with use_trace(trace):
            answers.append((trace, await system.ref("a").ask(Echo())))

    async with open_system(tree(child("a", Journal(), Traced))) as system, trio.open_nursery() as nursery:
        for trace in traces:
            nursery.start_soon(ask, system, trace)
    assert len(answers) == 3
    assert all(mine is its for mine, its in answers)


async def test_a_message_given_again_keeps_its_trace(autojump_clock: MockClock) -> None:
    seen: list[Trace | None] = []

    async def crash_once(_actor: Scripted) -> None:
        seen.append(current_trace())
        if len(seen) == 1:
            raise RuntimeError("once")

    async with open_system(tree(child("a", Journal(), on_crash="retry_once"))) as system:
        with use_trace(HERE):
            await system.ref("a").ask(Run(crash_once))
    assert seen == [HERE, HERE]


async def test_starts_and_stops_belong_to_no_trace(autojump_clock: MockClock) -> None:
    seen: list[Trace | None] = []

    async def note(_actor: Scripted) -> None:
        seen.append(current_trace())

    with use_trace(HERE):
        async with open_system(tree(child("a", Journal(), starting=note, stopping=note))) as system:
            await system.ref("a").ask(Echo())
            await system.ref("a").tell(Crash())
            await wait_all_tasks_blocked()
            await system.ref("a").ask(Echo())
    assert seen == [None] * 4


async def test_before_the_first_message_there_are_no_traces(autojump_clock: MockClock) -> None:
    async def look(actor: Actor[Any]) -> None:
        assert actor.traces() == []

    async with open_system(tree(child("a", Journal(), starting=look, mailbox=Mailbox(1)))):
        pass


def test_traceparent() -> None:
    header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert Trace.parse(header) == HERE
    assert HERE.traceparent == header
    assert Trace.parse(header[:-1] + "0") == Trace(HERE.trace_id, HERE.span_id, sampled=False)
    assert Trace(1, 2, sampled=False).traceparent == f"00-{'0' * 31}1-{'0' * 15}2-00"
    assert Trace.parse(f"  {header} ") == HERE
    assert Trace.parse(f"01-{header[3:]}-what-comes-later") == HERE


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
    ],
)
def test_what_is_no_traceparent_begins_a_new_trace(wrong: str) -> None:
    assert Trace.parse(wrong) is None


def test_a_child_is_in_the_same_trace_and_a_new_one_in_none_before() -> None:
    child = HERE.child()
    assert (child.trace_id, child.sampled, child.link) == (HERE.trace_id, True, None)
    assert child.span_id != HERE.span_id
    unsampled = Trace.new(sampled=False)
    assert not unsampled.child().sampled
    assert not unsampled.linked().sampled
    assert 0 < unsampled.trace_id < 2**128
    assert 0 < unsampled.span_id < 2**64
    assert unsampled.linked().link is unsampled


async def test_use_trace_is_undone_however_its_body_ends(autojump_clock: MockClock) -> None:
    with pytest.raises(ValueError, match="x"), use_trace(HERE):
        raise ValueError("x")
    assert current_trace() is None


@pytest.mark.parametrize("actor", [Scripted, ScriptedBatch])
@pytest.mark.parametrize("message", [Echo(), Crash()])
async def test_nothing_is_in_hand_in_on_stop(message: Any, actor: type[Scripted], autojump_clock: MockClock) -> None:
    seen: list[list[Trace | None]] = []

    async def look(stopping: Scripted) -> None:
        seen.append(stopping.traces())

    async with open_system(tree(child("a", Journal(), actor, stopping=look))) as system:
        with use_trace(HERE):
            await system.ref("a").tell(message)
        await wait_all_tasks_blocked()
    assert seen[0] == []


async def test_nothing_is_in_hand_between_two_batches(autojump_clock: MockClock) -> None:
    async def traces_later(actor: Scripted) -> Later:
        later = actor.later()

        async def look() -> None:
            await trio.sleep(1)
            later.answer(actor.traces())

        actor.spawn(look)
        return later

    async with open_system(tree(child("a", Journal(), ScriptedBatch))) as system:
        assert await system.ref("a").ask(Run(traces_later)) == []
