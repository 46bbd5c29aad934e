"""What an operator can do to the system, as functions over the actors that do it.

The same code runs in the server (admin API, control socket) and offline, on a small tree that the command
line opens under the data directory's lock.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from actors.runtime import ActorError, Ref, Reject
from backends.ports.entities import StoreUnavailable
from backends.ports.stores import Progress

Lookup = Callable[[str], Ref[Any]]
"""From the id of an actor to its reference."""


_PROGRESS = "progress"


class OperationError(Exception):
    """An operation that could not be done; the message tells the operator why, in one line."""


def wire(arguments: dict[str, Any]) -> bytes:
    """*arguments* as JSON. Raises OperationError for text that is none: bytes of a shell that are not UTF-8."""
    try:
        return msgspec.json.encode(arguments)
    except UnicodeEncodeError:
        raise OperationError("an argument is not UTF-8 text") from None


def unwatched(done: int, total: int) -> None:
    """The progress of an operation that nobody looks at."""


class Caller(Protocol):
    async def call(self, name: str, arguments: dict[str, Any], progress: Progress = unwatched) -> Any:
        """Run operation *name*; a long one tells *progress* now and then. Raises `OperationError`."""
        ...


class Operations:
    """The operations by name. Each is an async function with typed keyword arguments; one that takes `progress`
    is given the caller's."""

    def __init__(self, functions: dict[str, Callable[..., Awaitable[Any]]]) -> None:
        self._functions = functions

    async def call(self, name: str, arguments: dict[str, Any], progress: Progress = unwatched) -> Any:
        function = self._functions.get(name)
        if function is None:
            raise OperationError(f"there is no operation {name!r}; there are: {', '.join(sorted(self._functions))}")
        wire(arguments)
        hints = {key: hint for key, hint in function.__annotations__.items() if key not in ("return", _PROGRESS)}
        unknown = sorted(arguments.keys() - hints.keys())
        if unknown:
            raise OperationError(f"{name} takes no argument {unknown[0]!r}")
        try:
            typed = {key: msgspec.convert(value, hints[key]) for key, value in arguments.items()}
            if _PROGRESS in function.__annotations__:
                typed[_PROGRESS] = progress
            inspect.signature(function).bind(**typed)
        except (msgspec.ValidationError, TypeError) as error:
            raise OperationError(f"{name}: {error}") from None
        try:
            return await function(**typed)
        except Reject as refusal:
            raise OperationError(f"{name}: {refusal.error}") from None
        except (ActorError, StoreUnavailable) as error:
            raise OperationError(f"{name}: {error}") from None
