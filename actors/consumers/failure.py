"""What went wrong, as text that fits into a header or a column. Pure."""

import traceback
from dataclasses import dataclass

MESSAGE_LIMIT = 1024
STACK_LIMIT = 8 * 1024
"""Bytes. Without a cap a record grows with each hop until the log refuses it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The class's qualified name, the message and the stack trace of an exception."""

    fqcn: str
    message: str
    stacktrace: str = ""

    def __str__(self) -> str:
        return f"{self.fqcn}: {self.message}" if self.message else self.fqcn


def failure_of(error: BaseException) -> Failure:
    """Describe *error*; its cause is part of the stack trace."""
    kind = type(error)
    fqcn = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    stack = "".join(traceback.format_exception(error))
    return Failure(fqcn, clip(_message(error), MESSAGE_LIMIT), clip(stack, STACK_LIMIT, tail=True))


def _message(error: BaseException | None) -> str:
    """What *error* says or, if it says nothing, what it came from: a refused certificate reaches us as a
    bare ConnectError three causes away."""
    while error is not None and not str(error):
        error = error.__cause__ or error.__context__
    return "" if error is None else str(error)


def parse_failure(text: str) -> Failure:
    """The reverse of `str(failure)`, without the stack trace: what a persisted attempt still knows."""
    fqcn, _, message = text.partition(": ")
    return Failure(fqcn, message)


def clip(text: str, limit: int, *, tail: bool = False) -> str:
    """At most *limit* bytes of UTF-8 of *text*: its head, or its *tail* (Python's traces end with the error)."""
    # Lone surrogates come with file names and undecodable input; they must not stop a dead letter.
    raw = text.encode("utf-8", "backslashreplace")
    if len(raw) > limit:
        raw = raw[-limit:] if tail else raw[:limit]
    return raw.decode("utf-8", "ignore")
