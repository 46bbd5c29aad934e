"""A developer's handler, by the name that the configuration gives it."""

import importlib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from actors.consumers.handler import Handler
from actors.consumers.partitions import Delivered
from backends.ports.events import Event


class HandlerError(Exception):
    """A handler that cannot be: a configuration error. The message names it, the fault and the cure."""


class EachEvent:
    """A function of one event as a handler."""

    def __init__(self, function: Callable[[Event], Awaitable[object]]) -> None:
        self._function = function

    async def handle(self, events: Sequence[Delivered]) -> None:
        for delivered in events:
            await self._function(delivered.event)


def load_handler(name: str) -> Handler:
    """Import *name* (`package.module:attribute`) and make a handler of it; see `handler_of`. Raises HandlerError."""
    module_name, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the module's own code runs here
        raise HandlerError(f"{name}: {module_name} cannot be imported: {error!r}") from error
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise HandlerError(f"{name}: the module {module_name} has no {attribute}") from None
    try:
        return handler_of(found)
    except HandlerError as error:
        raise HandlerError(f"{name}: {error}") from error.__cause__


def handler_of(found: Any) -> Handler:
    """What a developer may write: an async function of one event, an object with an async `handle(events)`, or the
    class of such objects, made without arguments. Raises HandlerError."""
    if inspect.isclass(found):
        try:
            found = found()
        except Exception as error:
            raise HandlerError(f"{found.__name__}() raised {error!r}; give it no required argument") from error
    if inspect.iscoroutinefunction(found):
        return EachEvent(found)
    if inspect.iscoroutinefunction(getattr(found, "handle", None)):
        handler: Handler = found
        return handler
    raise HandlerError("is no handler; write an async function of one event, or a class with an async `handle(events)`")
