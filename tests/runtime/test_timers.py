"""A timer tells its actor a message at an exact time, and dies with the incarnation."""

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import Mailbox, Timer
from tests.runtime.support import EPSILON, Crash, Echo, Hold, Journal, Run, Scripted, child, open_system, tree


class Ticking(Scripted):
    async def handle(self, message: object) -> object:
        if message == "tick":
            self.journal.note("tick")
            return None
        return await super().handle(message)


def timer(delay: float, every: float | None = None) -> Run:
    async def begin(actor: Scripted) -> Timer:
        return actor.timer(delay, "tick", every)

    return Run(begin)


async def test_a_timer_fires_once_at_its_time(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal, Ticking))) as system:
        await system.ref("a").ask(timer(2.0))
        await trio.sleep(2.0 - EPSILON)
        assert journal.times("tick") == []
        await trio.sleep(10)
        assert journal.times("tick") == [2.0]


async def test_a_periodic_timer_fires_until_it_is_cancelled(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal, Ticking))) as system:
        ticker = await system.ref("a").ask(timer(1.0, every=2.0))
        await trio.sleep(6)
        ticker.cancel()
        await trio.sleep(10)
        assert journal.times("tick") == [1.0, 3.0, 5.0]


async def test_a_timer_cancelled_at_once_never_fires(autojump_clock: MockClock) -> None:
    journal = Journal()

    async def begin(actor: Scripted) -> None:
        actor.timer(0.0, "tick").cancel()

    async with open_system(tree(child("a", journal, Ticking))) as system:
        await system.ref("a").ask(Run(begin))
        await trio.sleep(1)
        assert journal.times("tick") == []


async def test_a_timer_dies_with_its_incarnation(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal, Ticking))) as system:
        await system.ref("a").ask(timer(1.0, every=1.0))
        await trio.sleep(1.5)
        await system.ref("a").tell(Crash())
        await trio.sleep(10)
        assert journal.times("tick") == [1.0]


async def test_a_timer_started_in_on_start_is_started_by_every_incarnation(autojump_clock: MockClock) -> None:
    journal = Journal()

    async def starting(actor: Scripted) -> None:
        actor.timer(1.0, "tick")

    async with open_system(tree(child("a", journal, Ticking, starting=starting))) as system:
        await trio.sleep(2)
        await system.ref("a").tell(Crash())
        await trio.sleep(2)
        assert journal.times("tick") == [1.0, 3.0]


async def test_ticks_that_find_the_mailbox_full_are_lost_where_that_is_its_policy(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal, Ticking, mailbox=Mailbox(1, "reject")))) as system:
        await system.ref("a").ask(timer(1.0, every=1.0))
        hold = Hold()
        await system.ref("a").tell(hold)
        await trio.sleep(4.5)
        hold.released.set()
        await wait_all_tasks_blocked()
        assert journal.times("tick") == [4.5]
        await trio.sleep(1)
        assert journal.times("tick") == [4.5, 5.0]


async def test_a_running_timer_does_not_hold_up_a_stop(autojump_clock: MockClock) -> None:
    journal = Journal()
    async with open_system(tree(child("a", journal, Ticking))) as system:
        await system.ref("a").ask(timer(1.0, every=1.0))
        await system.ref("a").tell(Echo(after=2.5))
        await wait_all_tasks_blocked()
    assert journal.times("gone a") == [2.5]
