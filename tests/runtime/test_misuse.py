"""What an actor, a factory or a tree may get wrong, and what it costs."""

import signal
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import (
    Actor,
    ActorCrashed,
    ActorStopped,
    Child,
    Later,
    LaterDropped,
    Mailbox,
    NeverAnswered,
    ShutdownOverrun,
    StartTimeout,
    StopFailed,
    Supervisor,
    SupervisorGaveUp,
)
from tests.runtime.support import (
    Asking,
    Boom,
    Crash,
    Echo,
    Journal,
    Run,
    Scripted,
    ScriptedBatch,
    ask_all,
    child,
    open_system,
    state_of,
    tree,
)


async def test_a_factory_that_raises_is_a_start_failure(autojump_clock: MockClock) -> None:
    def factory() -> Scripted:
        raise Boom("no actor")

    with pytest.raises(SupervisorGaveUp) as gave_up:
        async with open_system(tree(Child("a", factory, mailbox=Mailbox(1)))):
            pass
    assert isinstance(gave_up.value.__cause__, Boom)


async def test_a_factory_that_returns_no_actor_is_a_start_failure(autojump_clock: MockClock) -> None:
    factory: Any = object
    with pytest.raises(SupervisorGaveUp) as gave_up:
        async with open_system(tree(Child("a", factory, mailbox=Mailbox(1)))):
            pass
    assert isinstance(gave_up.value.__cause__, TypeError)
    assert "returned object, not an Actor" in str(gave_up.value.__cause__)


async def test_a_factory_that_fails_later_is_a_failed_restart(autojump_clock: MockClock) -> None:
    journal = Journal()
    made: list[Scripted] = []

    def factory() -> Scripted:
        if len(made) == 1:
            made.append(made[0])
            raise Boom("just now")
        made.append(Scripted("a", journal))
        return made[-1]

    async with open_system(tree(Child("a", factory, mailbox=Mailbox(4))), journal) as system:
        await system.ref("a").tell(Crash())
        await trio.sleep(5)
        assert [exit.exit.kind for exit in journal.exits("a")] == ["crashed", "start_failed"]
        assert await system.ref("a").ask(Echo(1)) == 1


async def test_an_async_factory_is_told_what_is_wrong_with_it(autojump_clock: MockClock) -> None:
    async def make() -> Scripted:
        raise AssertionError("not awaited")

    factory: Any = make
    with pytest.raises(SupervisorGaveUp) as gave_up:
        async with open_system(tree(Child("a", factory, mailbox=Mailbox(1)))):
            pass
    assert "returned coroutine, not an Actor; a factory is called and not awaited" in str(gave_up.value.__cause__)


@pytest.mark.parametrize(("takes", "starts"), [(1.0, True), (1.001, False)])
async def test_a_factory_that_hangs_is_part_of_the_start_and_its_timeout(
    takes: float, starts: bool, mock_clock: MockClock
) -> None:
    def factory() -> Scripted:
        mock_clock.jump(takes)  # it holds up the loop: that can only be noticed when it is over
        return Scripted("a", journal)

    journal = Journal()
    system = open_system(tree(Child("a", factory, mailbox=Mailbox(1), start_timeout=1.0)), journal)
    if starts:
        async with system:
            return
    with pytest.raises(SupervisorGaveUp) as gave_up:
        async with system:
            pass
    assert isinstance(gave_up.value.__cause__, StartTimeout)


async def test_an_on_start_that_hangs_without_a_checkpoint_is_too_late_as_well(mock_clock: MockClock) -> None:
    async def hang(_actor: Scripted) -> None:
        mock_clock.jump(1.5)

    with pytest.raises(SupervisorGaveUp) as gave_up:
        async with open_system(tree(child("a", Journal(), starting=hang, start_timeout=1.0))):
            pass
    assert isinstance(gave_up.value.__cause__, StartTimeout)


@pytest.mark.parametrize("results", [0, 1, 3])
async def test_a_batch_with_the_wrong_number_of_results_is_a_crash_that_says_so(
    results: int, autojump_clock: MockClock
) -> None:
    class Miscounts(ScriptedBatch):
        async def handle_batch(self, messages: list[Any]) -> list[Any]:
            return ["?"] * results

    async with open_system(tree(child("a", Journal(), Miscounts))) as system:
        answers = await ask_all(system, "a", [Echo(1), Echo(2)])
        assert [type(answer) for answer in answers] == [ActorCrashed, ActorCrashed]
        assert f"handle_batch returned {results} results for 2 messages" in str(answers[0].__cause__)


@pytest.mark.parametrize("wrong", [None, 7])
async def test_a_batch_that_returns_no_list_is_a_crash(wrong: Any, autojump_clock: MockClock) -> None:
    class Forgets(ScriptedBatch):
        async def handle_batch(self, messages: list[Any]) -> list[Any]:
            result: list[Any] = wrong
            return result

    async with open_system(tree(child("a", Journal(), Forgets))) as system:
        with pytest.raises(ActorCrashed) as crashed:
            await system.ref("a").ask(Echo())
        assert isinstance(crashed.value.__cause__, TypeError)


@pytest.mark.parametrize("actor", [Scripted, ScriptedBatch])
@pytest.mark.parametrize("how", ["ask", "tell"])
async def test_a_later_that_is_dropped_never_leaves_its_asker_waiting(
    how: str, actor: type[Scripted], autojump_clock: MockClock
) -> None:
    async def forget(actor: Scripted) -> Later:
        return actor.later()

    journal = Journal()
    async with open_system(tree(child("a", journal, actor)), journal) as system:
        if how == "ask":
            with pytest.raises(NeverAnswered, match="it may have been handled"):
                await system.ref("a").ask(Run(forget))
        else:
            await system.ref("a").tell(Run(forget))
        await wait_all_tasks_blocked()
        assert [event for event in journal.events if isinstance(event, LaterDropped)] == [LaterDropped("a", "Run")]
        assert state_of(system, "a")["in_hand_age"] is None
        assert await system.ref("a").ask(Echo(1)) == 1  # it goes on
    assert trio.current_time() - journal.opened == 0  # and its stop waits for nothing


async def test_a_later_dropped_by_a_crash_is_the_crashs_affair(autojump_clock: MockClock) -> None:
    async def forget_and_crash(actor: Scripted) -> Later:
        later = actor.later()

        async def crash() -> None:
            held = [later]
            await trio.sleep(1)
            held.clear()
            raise Boom("with the only Later in hand")

        actor.spawn(crash)
        return later

    journal = Journal()
    async with open_system(tree(child("a", journal)), journal) as system:
        with pytest.raises(ActorCrashed):
            await system.ref("a").ask(Run(forget_and_crash))
    assert not [event for event in journal.events if isinstance(event, LaterDropped)]


@pytest.mark.parametrize("how", ["ask", "tell", "try_tell"])
async def test_a_message_to_a_stopped_ref_is_refused_at_once_and_counted(how: str, autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        await system.ref("a").stop()
        if how == "try_tell":
            assert not system.ref("a").try_tell(Echo())
        else:
            with pytest.raises(ActorStopped, match="a has stopped; the message was not handled"):
                await getattr(system.ref("a"), how)(Echo())
        assert trio.current_time() == 0
        assert system.dead_letters.counts == ({} if how == "ask" else {("a", "stopped"): 1})


async def test_an_on_stop_that_never_ends_is_cut_off_and_reported(autojump_clock: MockClock) -> None:
    async def for_ever(_actor: Scripted) -> None:
        await trio.sleep_forever()

    journal = Journal()
    async with open_system(tree(child("a", journal, stopping=for_ever, shutdown=3.0)), journal):
        pass
    assert trio.current_time() - journal.opened == 3.0
    assert ShutdownOverrun("a", "on_stop", 3.0) in journal.events


@pytest.mark.parametrize("where", ["factory", "on_start"])
async def test_a_keyboard_interrupt_while_starting_stops_what_was_started_and_comes_out(
    where: str, autojump_clock: MockClock
) -> None:
    interrupt = KeyboardInterrupt()

    async def raise_it(_actor: Scripted) -> None:
        raise interrupt

    def factory() -> Scripted:
        raise interrupt

    journal = Journal()
    second = child("b", journal, starting=raise_it) if where == "on_start" else Child("b", factory, mailbox=Mailbox(1))
    with pytest.raises(KeyboardInterrupt) as caught:
        async with open_system(tree(child("a", journal), second, child("c", journal))):
            pytest.fail("the body must not run")
    assert caught.value is interrupt
    assert journal.order() == ["start a", "ready a", *(["start b"] if where == "on_start" else []), "stop a", "gone a"]


def test_a_real_interrupt_while_an_actor_starts_ends_the_program_in_order() -> None:
    journals: list[Journal] = []

    async def main() -> None:
        async def interrupted(_actor: Scripted) -> None:
            signal.raise_signal(signal.SIGINT)  # as Ctrl-C does
            await trio.sleep_forever()

        journals.append(Journal())
        root = tree(child("a", journals[0]), child("b", journals[0], starting=interrupted))
        async with open_system(root):
            pytest.fail("the body must not run")

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert journals[0].order() == ["start a", "ready a", "start b", "stop a", "gone a"]


@pytest.mark.parametrize(
    ("group", "cause"),
    [
        (ExceptionGroup("one", [Boom("x")]), Boom),
        (ExceptionGroup("two", [Boom("x"), OSError()]), Boom),
        (ExceptionGroup("deep", [ExceptionGroup("er", [OSError()])]), OSError),
        (BaseExceptionGroup("with an interrupt", [Boom("x"), KeyboardInterrupt()]), KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("where", ["handler", "on_start", "on_stop"])
async def test_a_group_of_exceptions_is_what_caused_it_wherever_it_comes_from(
    where: str, group: BaseExceptionGroup[Any], cause: type[BaseException], autojump_clock: MockClock
) -> None:
    async def raise_it(_actor: Scripted) -> None:
        raise group

    journal = Journal()
    scripts: dict[str, Any] = {"on_start": {"starting": raise_it}, "on_stop": {"stopping": raise_it}}.get(where, {})
    caught: BaseException | None = None
    try:
        async with open_system(tree(child("a", journal, **scripts)), journal) as system:
            if where == "handler":
                await system.ref("a").ask(Run(raise_it))
    except (ActorCrashed, SupervisorGaveUp) as error:
        caught = error.__cause__
    except KeyboardInterrupt as error:
        caught = error
    if where == "on_stop" and issubclass(cause, Exception):
        assert caught is None  # an error there hinders nothing
        caught = next(event.error for event in journal.events if isinstance(event, StopFailed))
    assert type(caught) is cause


async def test_an_actor_need_not_call_the_base_class_constructor(autojump_clock: MockClock) -> None:
    class Bare(Actor[int]):
        def __init__(self, step: int) -> None:
            self.step = step

        async def handle(self, message: int) -> int:
            return message + self.step

    async with open_system(tree(Child("a", partial(Bare, 2), mailbox=Mailbox(1)))) as system:
        assert await system.ref("a").ask(40) == 42


async def test_an_actor_without_a_handler_crashes_and_names_the_message(autojump_clock: MockClock) -> None:
    async with open_system(tree(Child("a", Actor, mailbox=Mailbox(1)))) as system:
        with pytest.raises(ActorCrashed, match="no handler for int"):
            await system.ref("a").ask(1)


async def test_a_later_answered_twice_crashes_the_actor_and_keeps_the_first_answer(autojump_clock: MockClock) -> None:
    journal = Journal()

    async def twice(actor: Scripted) -> Later:
        later = actor.later()

        async def answer() -> None:
            later.answer("first")
            later.answer("second")

        actor.spawn(answer)
        return later

    async with open_system(tree(child("a", journal)), journal) as system:
        assert await system.ref("a").ask(Run(twice)) == "first"
        await wait_all_tasks_blocked()
        assert isinstance(journal.exits("a")[0].exit.error, RuntimeError)


@pytest.mark.parametrize("on_crash", ["fail", "retry_once"])
async def test_a_later_returned_for_two_messages_is_a_crash_of_both(on_crash: str, autojump_clock: MockClock) -> None:
    class OneForAll(ScriptedBatch):
        batches = 0

        async def handle_batch(self, messages: list[Any]) -> list[Any]:
            self.journal.note(f"batch of {len(messages)}")
            if len(messages) == 1:
                return [message.value for message in messages]
            return [self.later()] * len(messages)

    journal = Journal()
    async with open_system(tree(child("a", journal, OneForAll, on_crash=on_crash))) as system:
        results = await ask_all(system, "a", [Echo(1), Echo(2)])
        if on_crash == "fail":
            assert [type(result.__cause__) for result in results] == [RuntimeError, RuntimeError]
        else:
            assert results == [1, 2]  # each given again, alone, and once
            assert journal.order("batch") == ["batch of 2", "batch of 1", "batch of 1"]


async def test_a_group_of_exceptions_counts_as_its_first(autojump_clock: MockClock) -> None:
    async def group(_actor: Scripted) -> None:
        async def fail() -> None:
            await trio.sleep(1)
            raise Boom("deep")

        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            outer.start_soon(trio.sleep_forever)
            inner.start_soon(fail)

    async with open_system(tree(child("a", Journal()))) as system:
        with pytest.raises(ActorCrashed) as crashed:
            await system.ref("a").ask(Run(group))
        assert isinstance(crashed.value.__cause__, Boom)


async def test_a_task_that_fails_while_it_is_cancelled_is_reported_and_stops_nothing(autojump_clock: MockClock) -> None:
    async def spawn_bad_loser(actor: Scripted) -> None:
        async def bad_loser() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise Boom("instead of Cancelled")

        actor.spawn(bad_loser)

    journal = Journal()
    async with open_system(tree(child("a", journal)), journal) as system:
        await system.ref("a").ask(Run(spawn_bad_loser))
    assert journal.order("gone") == ["gone a"]
    assert isinstance(journal.exits("a")[0].exit.error, Boom)


async def test_spawning_in_on_stop_is_reported(autojump_clock: MockClock) -> None:
    async def spawn(actor: Scripted) -> None:
        actor.spawn(trio.sleep_forever)

    journal = Journal()
    async with open_system(tree(child("a", journal, stopping=spawn)), journal):
        pass
    assert [type(event).__name__ for event in journal.events] == ["ActorReady", "StopFailed"]


@pytest.mark.usefixtures("schedule")
async def test_a_stop_called_in_on_start_or_on_stop_is_a_normal_end(autojump_clock: MockClock) -> None:
    async def stop(actor: Scripted) -> None:
        actor.stop()

    journal = Journal()
    root = tree(child("a", journal, starting=stop, stopping=stop, restart="transient"))
    async with open_system(root, journal) as system, trio.open_nursery() as nursery:
        ask = Asking(system, "a", Echo(), nursery)
        await wait_all_tasks_blocked()
        assert type(ask.error).__name__ == "ActorStopped"
    assert [exit.exit.kind for exit in journal.exits("a")] == ["normal"]


async def test_an_unknown_id_names_those_there_are(autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()), child("b", Journal()))) as system:
        with pytest.raises(LookupError, match=r"no actor 'c' in the tree; there are: a, b"):
            system.ref("c")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: Mailbox(0), "at least 1"),
        (lambda: Mailbox(1, "explode"), "on_full must be one of"),  # type: ignore[arg-type]
        (lambda: child("a", None, restart="sometimes"), "restart must be one of"),  # type: ignore[arg-type]
        (lambda: child("a", None, on_crash="panic"), "on_crash must be one of"),  # type: ignore[arg-type]
        (lambda: child("a", None, shutdown=0.0), "above 0"),  # type: ignore[arg-type]
        (lambda: Supervisor("s", strategy="none_for_all"), "strategy must be one of"),  # type: ignore[arg-type]
        (lambda: Supervisor("s", intensity=-1), "intensity"),
    ],
)
def test_a_wrong_declaration_is_refused_where_it_is_written(wrong: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        wrong()


async def test_a_tree_that_cannot_work_is_refused_before_anything_runs(autojump_clock: MockClock) -> None:
    journal = Journal()
    with pytest.raises(ValueError, match="two nodes of the tree are called 'a'"):
        async with open_system(tree(child("a", journal), tree(child("a", journal), id="inner"))):
            pass
    with pytest.raises(ValueError, match="above the system's shutdown_deadline"):
        async with open_system(tree(child("a", journal, shutdown=9.0)), shutdown_deadline=5.0):
            pass
    assert journal.entries == []
