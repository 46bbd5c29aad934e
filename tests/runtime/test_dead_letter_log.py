"""Dead letters in the log: the first ones each, a flood as one line a minute, nothing while the system stops."""

import logging

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime import DeadLetter, Mailbox, System
from tests.runtime.support import Echo, Hold, Journal, Refuse, child, open_system, tree

LEVELS = {logging.WARNING: "W", logging.INFO: "I"}


def read(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [
        f"{LEVELS[record.levelno]} {record.getMessage()}" for record in caplog.records if "dead letter" in record.msg
    ]
    caplog.clear()
    return found


async def refuse(system: System, times: int) -> None:
    for _ in range(times):
        await system.ref("a").tell(Refuse("no"))
    await wait_all_tasks_blocked()


@pytest.fixture(autouse=True)
def _every_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "actors.runtime")


async def test_the_first_ten_are_named_and_their_contents_are_not(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        await refuse(system, 10)
        assert read(caplog) == ["W dead letter: Refuse for a: rejected"] * 10


async def test_what_comes_after_them_is_one_line_a_minute_until_it_ends(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        await refuse(system, 10)
        await trio.sleep(1)
        read(caplog)
        await refuse(system, 25)
        assert read(caplog) == []
        await trio.sleep(59.9)
        assert read(caplog) == []
        await trio.sleep(0.2)
        assert read(caplog) == ["W 25 more dead letters: rejected 25"]
        await trio.sleep(1)
        await refuse(system, 3)  # it goes on: no new lines of their own
        assert read(caplog) == []
        await trio.sleep(60)
        assert read(caplog) == ["W 3 more dead letters: rejected 3"]
        await trio.sleep(60)  # a quiet minute
        await refuse(system, 2)
        assert read(caplog) == ["W dead letter: Refuse for a: rejected"] * 2


async def test_ten_a_minute_are_never_summed_up(caplog: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        for _ in range(5):
            await refuse(system, 10)
            assert len(read(caplog)) == 10
            await trio.sleep(60)
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline > 1e6  # and nothing waits


async def test_a_sum_says_how_many_for_which_reason(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with open_system(tree(child("a", Journal(), mailbox=Mailbox(16, "drop_new")))) as system:
        hold = Hold()
        await refuse(system, 10)
        await system.ref("a").tell(hold)
        await wait_all_tasks_blocked()
        for _ in range(20):
            system.ref("a").try_tell(Refuse("no"))
        hold.released.set()
        await wait_all_tasks_blocked()
        read(caplog)
        await trio.sleep(61)
        assert read(caplog) == ["W 20 more dead letters: dropped 4, rejected 16"]


async def test_where_only_the_asker_has_gone_nothing_is_lost_and_nobody_warned(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        for _ in range(12):
            with trio.move_on_after(1):
                await system.ref("a").ask(Echo(after=2))
            await trio.sleep(1)
        await trio.sleep(61)
        assert read(caplog) == ["I dead letter: Echo for a: late"] * 10 + ["I 2 more dead letters: late 2"]


async def test_a_system_that_stops_says_what_it_has_summed_up_and_is_quiet(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with open_system(tree(child("a", Journal()))) as system:
        await refuse(system, 15)
        read(caplog)
        for _ in range(5):
            system.ref("a").try_tell(Refuse("no"))  # handled, and refused, when it stops
    assert read(caplog) == ["W 5 more dead letters: rejected 5"]
    assert system.dead_letters.counts == {("a", "rejected"): 20}
    system.ref("a").try_tell(Echo())
    assert read(caplog) == []


async def test_a_subscription_can_be_ended(autojump_clock: MockClock) -> None:
    mine: list[DeadLetter] = []
    others: list[DeadLetter] = []
    async with open_system(tree(child("a", Journal()))) as system:
        end = system.dead_letters.subscribe(mine.append)
        system.dead_letters.subscribe(others.append)
        await refuse(system, 1)
        end()
        end()
        await refuse(system, 1)
    assert (len(mine), len(others)) == (1, 2)
