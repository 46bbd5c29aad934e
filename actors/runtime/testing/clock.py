"""Virtual time: an hour's sleep takes no time, and what did not happen by a moment can be told exactly."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked


class RealClock(AssertionError):
    """The test runs on the real clock, where the kit's waits would be slow and its negative statements guesses."""


def require_virtual_time() -> None:
    """Raise RealClock unless the running loop is under a MockClock."""
    if not isinstance(trio.lowlevel.current_clock(), MockClock):
        raise RealClock(
            "this test runs on the real clock. An async test that takes the `actor_system` fixture gets virtual time "
            "by itself; a Hypothesis test must take `autojump_clock` among its own arguments, because pytest-trio "
            "looks for a clock nowhere else; with trio.run, pass clock=MockClock(autojump_threshold=0)"
        )


def run_in_virtual_time(
    fn: Callable[..., Awaitable[Any]], *args: Any, clock: trio.abc.Clock | None, instruments: Sequence[Any] = ()
) -> Any:
    """trio.run as pytest-trio calls it, under a clock that jumps, unless the test brought one of its own."""
    if clock is None:
        clock = MockClock(autojump_threshold=0)
    try:
        return trio.run(fn, *args, clock=clock, instruments=instruments)
    except BaseExceptionGroup as group:
        # pytest-trio runs each test in a nursery, whose group of one would hide pytest's view of the failure.
        if len(group.exceptions) > 1:
            raise
        error = group.exceptions[0]
    raise error


async def happens(condition: Callable[[], bool], changed: trio.lowlevel.ParkingLot, within: float) -> bool:
    """Whether *condition* comes true within so many seconds, the last moment included.

    *changed* is unparked whenever the condition may have changed.
    """
    await trio.lowlevel.checkpoint()
    with trio.move_on_after(within):
        while not condition():
            await changed.park()
        return True
    # The deadline, and all that is due at the same moment, in some order: let that order not matter.
    await wait_all_tasks_blocked()
    return condition()
