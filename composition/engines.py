"""The engines open for the life of the process, above the tree: a crash of an actor closes no connection."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from backends.asyncio_bridge import asyncio_loop
from composition.parts import Parts


@asynccontextmanager
async def opened_engines(parts: Parts) -> AsyncIterator[None]:
    """asyncio's loop is there only where an engine needs it."""
    async with AsyncExitStack() as stack:
        if parts.redis is not None:
            await stack.enter_async_context(asyncio_loop())
            await stack.enter_async_context(parts.redis.opened())
        await stack.enter_async_context(parts.engine.opened())
        yield
