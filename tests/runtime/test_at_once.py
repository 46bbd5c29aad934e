"""An actor whose handler is a plain function handles an ask in its asker's turn: nobody can tell but by the clock."""

import types
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import (
    Actor,
    ActorCrashed,
    ActorStopped,
    AskCycle,
    Backoff,
    Child,
    Later,
    Mailbox,
    Reject,
    Supervisor,
    System,
    Trace,
    current_trace,
    use_trace,
)
from tests.runtime.support import NO_JITTER, Boom, open_system


class Plain(Actor[Any]):
    """Calls the message with itself, or answers it; `seen` is kept over its lives."""

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    def handle(self, message: Any) -> Any:
        self.seen.append(message)
        return message(self) if callable(message) else message


class PlainBatch(Plain):
    def handle_batch(self, messages: list[Any]) -> list[Any]:
        return [self.one(message) for message in messages]

    def one(self, message: Any) -> Any:
        try:
            return self.handle(message)
        except Reject as refusal:
            return refusal


KINDS = pytest.mark.parametrize("kind", [Plain, PlainBatch])


def plain(kind: type[Plain], seen: list[Any] | None = None, **options: Any) -> Supervisor:
    intensity = None if options.pop("intensity_free", False) else 3
    options = {"mailbox": Mailbox(16), "backoff": NO_JITTER, **options}
    return Supervisor(
        "root", intensity=intensity, children=[Child("a", partial(kind, [] if seen is None else seen), **options)]
    )


def raising(error: Exception, times: int = 99) -> Callable[[Plain], Any]:
    """Raises the first *times* times, then answers."""
    left = [times]

    def message(_actor: Plain) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return "again"

    return message


async def turns_of(fn: Callable[[], Any]) -> int:
    """How often others have had their turn while `fn()` was awaited."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await trio.lowlevel.checkpoint()
        before = turns
        await fn()
        after = turns
        nursery.cancel_scope.cancel()
    return after - before


async def back(system: System) -> None:
    while system.snapshot()["children"][0]["state"] != "ready":  # noqa: ASYNC110 - nothing tells of it
        await trio.sleep(0.01)


async def ready(system: System) -> Any:
    """Let the actor's task come to rest, as it does after its start."""
    await wait_all_tasks_blocked()
    return system.ref("a")


@KINDS
async def test_an_idle_actor_answers_in_its_askers_turn(kind: type[Plain], autojump_clock: MockClock) -> None:
    async with open_system(plain(kind)) as system:
        ref = await ready(system)

        async def ask() -> None:
            assert await ref.ask("x") == "x"

        assert await turns_of(ask) == 0
        with pytest.raises(Reject) as caught:
            await ref.ask(raising(Reject("no")))
        assert caught.value.error == "no"


@types.coroutine
def noting_yields(coroutine: Any, yields: list[int]) -> Any:
    """Await *coroutine*, and count in the last of *yields* how often it lets other tasks run."""
    sent = None
    while True:
        try:
            trap = coroutine.send(sent)
        except StopIteration as end:
            return end.value
        yields[-1] += 1
        sent = yield trap


@KINDS
async def test_each_sixteenth_ask_of_one_asker_in_a_row_lets_others_have_their_turn(
    kind: type[Plain], autojump_clock: MockClock
) -> None:
    async with open_system(plain(kind)) as system:
        ref = await ready(system)
        yields: list[int] = []
        for _ in range(48):
            yields.append(0)
            assert await noting_yields(ref.ask("x"), yields) == "x"
    assert yields == ([0] * 15 + [1]) * 3


@KINDS
async def test_another_asker_begins_a_row_of_its_own(kind: type[Plain], autojump_clock: MockClock) -> None:
    async with open_system(plain(kind)) as system:
        ref = await ready(system)
        in_own_turn: list[bool] = []

        async def ask(times: int) -> None:
            for _ in range(times):
                handled_by = await ref.ask(lambda _actor: trio.lowlevel.current_task())
                in_own_turn.append(handled_by is trio.lowlevel.current_task())

        for _ in range(3):
            await ask(12)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, 12)
    assert in_own_turn == [True] * 72


@KINDS
async def test_what_a_sender_told_before_is_handled_before(kind: type[Plain], autojump_clock: MockClock) -> None:
    seen: list[Any] = []
    async with open_system(plain(kind, seen)) as system:
        ref = await ready(system)
        for round in range(3):
            assert ref.try_tell(("told", round))
            await ref.ask(("asked", round))
            await ref.tell(("told again", round))
            await ref.ask(("asked again", round))
    assert seen == [(what, n) for n in range(3) for what in ("told", "asked", "told again", "asked again")]


@KINDS
@pytest.mark.parametrize("on_crash", ["fail", "retry_once"])
async def test_what_the_handler_raises_crashes_the_actor_and_not_the_asker(
    kind: type[Plain], on_crash: str, autojump_clock: MockClock
) -> None:
    async with open_system(plain(kind, on_crash=on_crash)) as system:
        ref = await ready(system)
        letters: list[Any] = []
        system.dead_letters.subscribe(letters.append)
        if on_crash == "fail":
            with pytest.raises(ActorCrashed) as caught:
                await ref.ask(raising(Boom("boom"), times=1))
            assert isinstance(caught.value.__cause__, Boom)
        else:
            assert await ref.ask(raising(Boom("boom"), times=1)) == "again"
            with pytest.raises(ActorCrashed):
                await ref.ask(raising(Boom("boom"), times=2))
        assert await ref.ask("well") == "well"
        (child,) = system.snapshot()["children"]
        assert child["restarts"] == (1 if on_crash == "fail" else 3)
        assert child["last_error"] == "Boom: boom"
        assert letters == [], "its asker was told"


@KINDS
async def test_an_answer_may_come_later(kind: type[Plain], autojump_clock: MockClock) -> None:
    async def answer(later: Later) -> None:
        await trio.sleep(1)
        later.answer("late")

    def message(actor: Plain) -> Later:
        later = actor.later()
        actor.spawn(answer, later)
        return later

    def at_once(actor: Plain) -> Later:
        later = actor.later()
        later.answer("at once")
        return later

    async with open_system(plain(kind)) as system:
        ref = await ready(system)
        assert await ref.ask(message) == "late"
        assert trio.current_time() == 1
        assert await ref.ask(at_once) == "at once"
        letters: list[Any] = []
        system.dead_letters.subscribe(letters.append)
        with trio.move_on_after(0.5):
            await ref.ask(message)
        await trio.sleep(1)
        assert [letter.reason for letter in letters] == ["late"]


@KINDS
async def test_the_kill_switch_strikes_the_next_message(kind: type[Plain], autojump_clock: MockClock) -> None:
    async with open_system(plain(kind)) as system:
        ref = await ready(system)
        system.crash("a")
        with pytest.raises(ActorCrashed):
            await ref.ask("x")
        assert await ref.ask("y") == "y"


@KINDS
@pytest.mark.parametrize("how", ["stop", "drain", "kill"])
async def test_nothing_is_handled_once_it_is_asked_to_end(
    kind: type[Plain], how: str, autojump_clock: MockClock
) -> None:
    seen: list[Any] = []
    async with open_system(plain(kind, seen)) as system, trio.open_nursery() as nursery:
        ref = await ready(system)
        nursery.start_soon(getattr(ref, how))
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        with pytest.raises(ActorStopped):
            await ref.ask("x")
        assert seen == []


@KINDS
async def test_it_may_end_itself(kind: type[Plain], autojump_clock: MockClock) -> None:
    async with open_system(plain(kind, restart="transient")) as system:
        ref = await ready(system)
        assert await ref.ask(lambda actor: actor.stop()) is None
        with pytest.raises(ActorStopped):
            await ref.ask("x")


@KINDS
async def test_a_cancelled_asker_asks_nothing(kind: type[Plain], autojump_clock: MockClock) -> None:
    seen: list[Any] = []
    async with open_system(plain(kind, seen)) as system:
        ref = await ready(system)
        with trio.CancelScope() as scope:
            scope.cancel()
            await ref.ask("x")
        assert scope.cancelled_caught
        assert seen == []


@KINDS
async def test_it_runs_in_the_trace_of_its_asker(kind: type[Plain], autojump_clock: MockClock) -> None:
    async with open_system(plain(kind)) as system:
        ref = await ready(system)
        with use_trace(Trace.new()) as _:
            here = current_trace()
            assert await ref.ask(lambda actor: (current_trace(), actor.traces())) == (here, [here])


@KINDS
async def test_one_in_sixteen_is_measured_and_stands_for_all(kind: type[Plain], autojump_clock: MockClock) -> None:
    async with open_system(plain(kind), metrics=True) as system:
        ref = await ready(system)
        await trio.sleep(5)  # an age is a difference: not a time of day
        for _ in range(15):
            ref.ask_now("x")
        assert sum(system.metrics()["a"].latency.counts) == 0
        ref.ask_now("x")
        assert sum(system.metrics()["a"].latency.counts) == 16
        for _ in range(15):
            ref.ask_now("x")
        assert sum(system.metrics()["a"].latency.counts) == 16
        ref.ask_now("x")
        measured = system.metrics()["a"]
        for histogram in (measured.message_age, measured.latency):
            assert (histogram.counts[0], sum(histogram.counts), histogram.total) == (32, 32, 0.0)
        assert (sum(measured.mailbox_depth.counts), measured.mailbox_depth.total) == (32, 32)


@KINDS
async def test_an_answer_that_comes_later_is_measured_from_the_ask_on(
    kind: type[Plain], autojump_clock: MockClock
) -> None:
    async def answer(later: Later) -> None:
        await trio.sleep(2)
        later.answer(None)

    def message(actor: Plain) -> Later:
        later = actor.later()
        actor.spawn(answer, later)
        return later

    async with open_system(plain(kind), metrics=True) as system:
        ref = await ready(system)
        await trio.sleep(5)
        await ref.ask(message)
        measured = system.metrics()["a"]
    assert (measured.message_age.total, measured.latency.total) == (2.0, 2.0)


@KINDS
async def test_a_message_given_again_is_measured_from_its_first_ask_on(
    kind: type[Plain], autojump_clock: MockClock
) -> None:
    async with open_system(plain(kind, on_crash="retry_once", backoff=Backoff(first=2.0)), metrics=True) as system:
        ref = await ready(system)
        await trio.sleep(5)
        assert await ref.ask(raising(Boom("boom"), times=1)) == "again"
        assert system.metrics()["a"].latency.total == 2.0


@KINDS
async def test_what_is_handled_at_once_counts_as_handled(kind: type[Plain], autojump_clock: MockClock) -> None:
    # After 32 handled messages a crash is the first one again, and is followed by a restart at once.
    async with open_system(plain(kind, intensity_free=True)) as system:
        ref = await ready(system)
        for after, waited in ((31, 0.5), (32, 0.0)):
            with pytest.raises(ActorCrashed):
                await ref.ask(raising(Boom("boom")))  # one failure, and its restart at once
            await wait_all_tasks_blocked()
            for number in range(after):
                await ref.ask(number)
            with pytest.raises(ActorCrashed):
                await ref.ask(raising(Boom("boom")))
            before = trio.current_time()
            await back(system)
            assert trio.current_time() - before == pytest.approx(waited, abs=0.011)
            for number in range(40):
                await ref.ask(number)


@KINDS
async def test_ask_now_answers_or_would_block(kind: type[Plain], autojump_clock: MockClock) -> None:
    async with open_system(plain(kind)) as system:
        ref = await ready(system)
        assert ref.ask_now("x") == "x"
        with pytest.raises(Reject):
            ref.ask_now(raising(Reject("no")))
        with pytest.raises(trio.WouldBlock):
            ref.ask_now(lambda actor: actor.ref.ask_now("again"))
        await trio.sleep(1)
        ref.try_tell("told")
        with pytest.raises(trio.WouldBlock):
            ref.ask_now("behind what was told")


async def test_ask_now_of_an_actor_that_may_wait_would_block(autojump_clock: MockClock) -> None:
    class Waits(Actor[Any]):
        async def handle(self, message: Any) -> Any:
            return message

    tree = Supervisor("root", children=[Child("a", Waits, mailbox=Mailbox(1))])
    async with open_system(tree) as system:
        with pytest.raises(trio.WouldBlock):
            (await ready(system)).ask_now("x")


@pytest.mark.parametrize("first", [True, False])
async def test_a_plain_handler_that_returns_a_coroutine_is_a_mistake_that_is_named(
    first: bool, autojump_clock: MockClock
) -> None:
    async def coroutine() -> None: ...

    async with open_system(plain(Plain)) as system:
        ref = await ready(system)
        if not first:
            ref.try_tell("so that it goes through the mailbox")
        with pytest.raises(ActorCrashed, match="define it with `async def`"):
            await ref.ask(lambda _actor: coroutine())


async def test_a_batch_of_one_has_one_result(autojump_clock: MockClock) -> None:
    class Wrong(Plain):
        def handle_batch(self, messages: list[Any]) -> list[Any]:
            return [1, 2]

    async with open_system(plain(Wrong)) as system:
        with pytest.raises(ActorCrashed, match="2 results for 1 messages"):
            await (await ready(system)).ask("x")


async def test_a_plain_batch_that_is_a_coroutine_is_named_too(autojump_clock: MockClock) -> None:
    async def coroutine() -> None: ...

    class Wrong(Plain):
        def handle_batch(self, messages: list[Any]) -> Any:
            return coroutine()

    async with open_system(plain(Wrong)) as system:
        with pytest.raises(ActorCrashed, match="define it with `async def`"):
            await (await ready(system)).ask("x")


async def test_what_ask_now_did_not_wait_for_is_a_dead_letter_when_it_comes(autojump_clock: MockClock) -> None:
    async def answer(later: Later) -> None:
        await trio.sleep(1)
        later.answer("late")

    def message(actor: Plain) -> Later:
        later = actor.later()
        actor.spawn(answer, later)
        return later

    async with open_system(plain(Plain)) as system:
        ref = await ready(system)
        letters: list[Any] = []
        system.dead_letters.subscribe(letters.append)
        with pytest.raises(trio.WouldBlock):
            ref.ask_now(message)
        await trio.sleep(2)
        assert [letter.reason for letter in letters] == ["late"]


async def test_nothing_is_handled_while_a_crashed_life_ends(autojump_clock: MockClock) -> None:
    happened: list[str] = []

    class Slow(Plain):
        async def on_stop(self) -> None:
            happened.append("ends")
            await trio.sleep(1)
            happened.append("has ended")

    async def boom() -> None:
        raise Boom("in a task")

    async with open_system(plain(Slow, shutdown=5.0)) as system:
        ref = await ready(system)
        await ref.ask(lambda actor: actor.spawn(boom))
        await trio.sleep(0.5)
        with trio.move_on_after(0.4):
            await ref.ask(lambda _actor: happened.append("handled"))
        assert happened == ["ends"]
        await trio.sleep(1)
        assert await ref.ask("x") == "x"
        assert happened == ["ends", "has ended"]


@KINDS
async def test_no_ask_overtakes_another(kind: type[Plain], autojump_clock: MockClock) -> None:
    seen: list[Any] = []
    async with open_system(plain(kind, seen)) as system, trio.open_nursery() as nursery:
        ref = await ready(system)
        nursery.start_soon(ref.ask, "of another task, which has not had its turn yet")
        for number in range(16):
            await ref.ask(number)
    assert seen == [*range(16), "of another task, which has not had its turn yet"]


async def test_a_cycle_over_a_message_to_be_given_again_is_refused(autojump_clock: MockClock) -> None:
    refused: list[list[str]] = []

    class Asks(Plain):
        """From its second life on it asks `b` before it is ready (what it has seen outlives it)."""

        async def on_start(self) -> None:
            if self.seen:
                try:
                    await self.lookup("b").ask("are you there?")
                except AskCycle as error:
                    refused.append(error.cycle)

    class Waits(Actor[Any]):
        async def handle(self, message: Any) -> Any:
            return await self.lookup("a").ask(message)

    children = [
        Child("a", partial(Asks, []), mailbox=Mailbox(4), backoff=NO_JITTER, on_crash="retry_once"),
        Child("b", Waits, mailbox=Mailbox(4)),
    ]
    async with open_system(Supervisor("root", children=children)) as system:
        await wait_all_tasks_blocked()
        with trio.fail_after(20):
            assert await system.ref("b").ask(raising(Boom("boom"), times=1)) == "again"
    assert refused == [["a", "b", "a"]]
