"""Crossing to asyncio and back: results, errors, and cancellation and deadlines in both directions."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import trio

from backends.asyncio_bridge import asyncio_loop, bare, crossing
from tests.backends.postgres_pool import Cut


class Steps:
    """Five awaits, and what became of them."""

    def __init__(self) -> None:
        self.done = 0
        self.cleaned = False
        self.cancelled = False

    async def run(self) -> str:
        try:
            for _ in range(5):
                await asyncio.sleep(0)
                self.done += 1
        except asyncio.CancelledError:
            self.cancelled = True
            await asyncio.sleep(0)  # cleaning up may take a while
            raise
        finally:
            self.cleaned = True
        return "result"


async def test_results_and_errors_pass() -> None:
    async def fail() -> None:
        raise KeyError("x")

    async with asyncio_loop():
        assert await crossing(Steps().run) == "result"
        with pytest.raises(KeyError):
            await crossing(fail)


@pytest.mark.parametrize("at", range(5))
async def test_cancelled_at_any_await_asyncios_side_ends_first_and_trio_is_cancelled(at: int) -> None:
    steps, cut = Steps(), Cut(at)
    async with asyncio_loop():
        with cut.scope:
            await cut(steps.run)
        assert cut.scope.cancelled_caught
        assert (steps.done, steps.cancelled, steps.cleaned) == (at, True, True)
        assert await crossing(Steps().run) == "result"


async def test_a_deadline_of_trios_ends_work_of_asyncios(autojump_clock: trio.testing.MockClock) -> None:
    async with asyncio_loop():
        with trio.move_on_after(1.5) as scope:
            await crossing(asyncio.Event().wait)
        assert scope.cancelled_caught
        assert trio.current_time() == 1.5


async def test_a_deadline_of_asyncios_is_an_error_and_cancels_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async def impatient() -> None:
        async with asyncio.timeout(2.0):
            await asyncio.Event().wait()

    async with asyncio_loop():
        with pytest.raises(TimeoutError):
            await crossing(impatient)
        await trio.sleep(0.5)
        assert trio.current_time() == 2.5


async def test_what_asyncio_cancels_by_itself_is_not_trios_cancellation() -> None:
    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async with asyncio_loop():
        with trio.CancelScope() as scope, pytest.raises(asyncio.CancelledError):
            await crossing(cancels_itself)
        assert not scope.cancelled_caught


async def test_a_shield_with_a_deadline_holds_for_asyncio_too(autojump_clock: trio.testing.MockClock) -> None:
    async with asyncio_loop():
        with trio.CancelScope() as outer:
            outer.cancel()
            with trio.move_on_after(3.0, shield=True) as inner:
                await crossing(asyncio.Event().wait)
            assert inner.cancelled_caught
        assert trio.current_time() == 3.0


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_lone_exception_comes_out_of_its_groups(depth: int) -> None:
    error: BaseException = KeyError("x")
    for _ in range(depth):
        error = BaseExceptionGroup("g", [error])
    with pytest.raises(KeyError), bare():
        raise error


def test_several_exceptions_stay_together() -> None:
    with pytest.raises(ExceptionGroup), bare():
        raise ExceptionGroup("g", [KeyError(), ValueError()])


async def test_the_loops_errors_are_bare() -> None:
    with pytest.raises(KeyError):
        async with asyncio_loop():
            raise KeyError("x")


async def test_tasks_that_cross_at_once_do_not_wait_for_each_other(autojump_clock: trio.testing.MockClock) -> None:
    async def cross(function: Callable[[], Awaitable[object]]) -> None:
        await crossing(function)

    async with asyncio_loop():
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(cross, lambda: asyncio.sleep(1.0))
        assert trio.current_time() == 1.0
