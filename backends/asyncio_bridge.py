"""asyncio's libraries from trio, on trio's own thread (trio-asyncio).

A crossing costs about 100 µs, so adapters cross with a batch and never with a single call. The composition root
opens the loop once (`asyncio_loop`), above the tree; everything below may call `crossing`.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, cast

import trio_asyncio

T = TypeVar("T")


def asyncio_loop() -> AbstractAsyncContextManager[Any]:
    """An asyncio event loop within the running trio loop, for as long as the block runs."""
    return cast(AbstractAsyncContextManager[Any], trio_asyncio.open_loop())


async def crossing(function: Callable[..., Awaitable[T]], /, *args: Any) -> T:
    """Await asyncio's `function(*args)`; its exceptions pass through.

    Cancelled (trio): the asyncio task is cancelled, and `trio.Cancelled` is raised once it has ended. A library
    that does not take cancellation well is called behind a shield with a deadline instead.
    """
    return cast(T, await trio_asyncio.aio_as_trio(function)(*args))
