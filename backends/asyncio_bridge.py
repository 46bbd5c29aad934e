"""asyncio's libraries from trio, on trio's own thread (trio-asyncio).

A crossing costs about 100 µs, so adapters cross with a batch and never with a single call. The composition root
opens the loop once (`asyncio_loop`), above the tree; everything below may call `crossing`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar, cast

import structlog
import trio_asyncio

log = structlog.get_logger(__name__)

T = TypeVar("T")

_FORGOTTEN = "Task exception was never retrieved"


@asynccontextmanager
async def asyncio_loop() -> AsyncIterator[None]:
    """An asyncio event loop within the running trio loop, for as long as the block runs. Its exceptions come out
    as they are.

    What a library's callback or forgotten task raises is logged, as in asyncio: trio-asyncio's own way is to end the
    loop with it, and everything else on it.
    """
    with bare():
        async with trio_asyncio.open_loop() as loop:
            loop.set_exception_handler(_log_unhandled)
            yield


def _log_unhandled(_: Any, context: dict[str, Any]) -> None:
    problem = str(context.get("message"))
    if problem == _FORGOTTEN:
        # Nobody waits for it: aiokafka shields a commit, say, that we gave up waiting for while a broker hung.
        log.warning("asyncio.forgotten_task", problem=repr(context.get("exception")))
        return
    log.error("asyncio.unhandled", problem=problem, exc_info=context.get("exception"))


async def crossing(function: Callable[..., Awaitable[T]], /, *args: Any) -> T:
    """Await asyncio's `function(*args)`; its exceptions pass through.

    Cancelled (trio): the asyncio task is cancelled, and `trio.Cancelled` is raised once it has ended. A library
    that does not take cancellation well is called behind a shield with a deadline instead.
    """
    return cast(T, await trio_asyncio.aio_as_trio(function)(*args))


@contextmanager
def bare() -> Iterator[None]:
    """An exception that a nursery wrapped although it was the only one comes out as itself."""
    alone: BaseException
    try:
        yield
        return
    except BaseExceptionGroup as group:
        alone = group
        while isinstance(alone, BaseExceptionGroup) and len(alone.exceptions) == 1:
            alone = alone.exceptions[0]
    raise alone
