"""What an operator can do to the system, as functions over the actors that do it.

The same code runs in the server (admin API, control socket) and offline, on a small tree that the command
line opens under the data directory's lock.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from actors.runtime import ActorError, Ref, Reject

Lookup = Callable[[str], Ref[Any]]
"""From the id of an actor to its reference."""


class OperationError(Exception):
    """An operation that could not be done; the message tells the operator why, in one line."""


def wire(arguments: dict[str, Any]) -> bytes:
    """*arguments* as JSON. Raises OperationError for text that is none: bytes of a shell that are not UTF-8."""
    try:
        return msgspec.json.encode(arguments)
    except UnicodeEncodeError:
        raise OperationError("an argument is not UTF-8 text") from None


class Caller(Protocol):
    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Run operation *name*. Raises `OperationError`."""
        ...


class Operations:
    """The operations by name. Each is an async function with typed keyword arguments."""

    def __init__(self, functions: dict[str, Callable[..., Awaitable[Any]]]) -> None:
        self._functions = functions

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        function = self._functions.get(name)
        if function is None:
            raise OperationError(f"there is no operation {name!r}; there are: {', '.join(sorted(self._functions))}")
        wire(arguments)
        hints = {key: hint for key, hint in function.__annotations__.items() if key != "return"}
        unknown = sorted(arguments.keys() - hints.keys())
        if unknown:
            raise OperationError(f"{name} takes no argument {unknown[0]!r}")
        try:
            typed = {key: msgspec.convert(value, hints[key]) for key, value in arguments.items()}
            inspect.signature(function).bind(**typed)
        except (msgspec.ValidationError, TypeError) as error:
            raise OperationError(f"{name}: {error}") from None
        try:
            return await function(**typed)
        except Reject as refusal:
            raise OperationError(f"{name}: {refusal.error}") from None
        except ActorError as error:
            raise OperationError(f"{name}: {error}") from None
