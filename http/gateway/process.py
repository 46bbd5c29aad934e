"""The life of the server process: signals in, drain and reload out."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
import trio

log = structlog.get_logger(__name__)

STOP = (signal.SIGTERM, signal.SIGINT)


async def until_stopped(
    signals: AsyncIterator[int],
    *,
    reload: Callable[[], Awaitable[None]],
    roll: Callable[[], Awaitable[None]],
    drain: Callable[[], Awaitable[None]],
) -> None:
    """Reload on each SIGHUP, roll on each SIGUSR2; drain and return on the first of `STOP`. A second one cuts the drain
    short. A roll takes its time, so signals are heard meanwhile; the drain gives it up."""
    async with trio.open_nursery() as rolling:
        async for received in signals:
            if received == signal.SIGHUP:
                await reload()
            elif received == signal.SIGUSR2:
                rolling.start_soon(roll)
            elif received in STOP:
                log.info("stopping", signal=signal.Signals(received).name)
                break
        rolling.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cut_short, signals, nursery.cancel_scope)
        await drain()
        nursery.cancel_scope.cancel()


async def _cut_short(signals: AsyncIterator[int], drain: trio.CancelScope) -> None:
    async for received in signals:
        if received in STOP:
            log.warning("told to stop again: not waiting for the requests in flight")
            drain.cancel()
