"""The answer of a long operation as JSON lines: how far it is, each second, and at last its result or its error."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any

import msgspec
import structlog
import trio
from quart import Response
from quart.wrappers.response import ResponseBody

from backends.ports.stores import Progress
from gateway.admin.operations import OperationError

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/x-ndjson"
"""A request that accepts it gets lines; any other gets the result alone, once it is there."""

# Also what keeps a client from taking a silent server for a dead one.
EVERY_S = 1.0


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """`done` of `total` (0: unknown), or, in the last line, `result` or `error`."""

    done: int = 0
    total: int = 0
    result: Any = msgspec.UNSET
    error: str | None = None


def streamed(operation: Callable[[Progress], Awaitable[Any]]) -> Response:
    """Run *operation* while its answer is sent. A client that goes away cancels it."""
    response = Response(ProgressBody(operation), content_type=MEDIA_TYPE)
    response.timeout = None
    response.headers["Cache-Control"] = "no-store"
    return response


class ProgressBody(ResponseBody):
    """quart enters it around sending, in the task that sends: so the operation has a nursery to run in that no
    suspended generator holds open."""

    def __init__(self, operation: Callable[[Progress], Awaitable[Any]]) -> None:
        self._operation = operation
        self._now = Line()
        self._last: Line | None = None
        self._ended = trio.Event()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "AsyncIterator[bytes]":
        nursery = await self._stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(self._run)
        self._stack.callback(nursery.cancel_scope.cancel)  # runs first: nobody reads on
        return self._lines()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, at)

    async def _run(self) -> None:
        try:
            self._last = Line(result=await self._operation(self._progress))
        except OperationError as error:
            self._last = Line(error=str(error))
        except Exception:
            log.exception("an operation failed")
            self._last = Line(error="the server failed; its log says how")
        self._ended.set()

    def _progress(self, done: int, total: int) -> None:
        self._now = Line(done, total)

    async def _lines(self) -> AsyncIterator[bytes]:
        while self._last is None:
            with trio.move_on_after(EVERY_S):
                await self._ended.wait()
            if self._last is None:
                yield _line(self._now)
        yield _line(self._last)


def _line(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"
