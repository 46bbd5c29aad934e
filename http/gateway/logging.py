"""Where log lines go and what they look like: structlog's and the standard library's through one chain.

For people on a terminal, one JSON object a line elsewhere. Every line has `timestamp` (ISO 8601, UTC),
`level`, `logger` and `event`. Secrets are taken out at the very end, after tracebacks became text.
"""

import json
import logging
import math
import re
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED = "***"
_SECRET_NAMES = frozenset(
    name + plural for name in ("token", "authorization", "secret", "password", "cookie") for plural in ("", "s")
)
# The last word decides: `access_token` and `Set-Cookie` are secrets, `token_kind` is not.
_LAST_WORD = re.compile(r"[A-Za-z]+$")
_SECRET_TEXT = re.compile(
    r"(?P<scheme>\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{16,}"  # a header's value
    r"|(?P<name>(?:token|authorization|secret|password|cookie)=)[^&\s,;)]+"  # a query, a form, a repr
    r"|(?P<user>//)[^/\s@]+(?=@)",  # the user information of a URL
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MAX_DEPTH = 6
_LEADING = ("timestamp", "level", "logger", "event")


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that configuring anew replaces it and leaves the handlers of others alone."""


def configure_logging(level: str, format: str, stream: TextIO) -> None:
    """Send all logging of the process to *stream*, from *level* on. May be called again.

    *format*: `console`, `json`, or `auto`: console if *stream* is a terminal. Colours on terminals only.
    """
    terminal = stream.isatty()
    console = format == "console" or (format == "auto" and terminal)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,  # asks the standard library, so `set_level` works at once
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # configuring anew reaches every logger, whoever used it before
    )
    handler = _Handler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(), _forget_formatted],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # Tracebacks as plain text: the pretty ones show local variables, and those hold secrets.
                structlog.processors.format_exc_info,
                redact,
                *(_console(colors=terminal) if console else _json()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [*(other for other in root.handlers if not isinstance(other, _Handler)), handler]
    set_level(level)


def set_level(level: str) -> None:
    """Change the level (`debug` … `critical`) of the running process. Raises ValueError for another word."""
    logging.getLogger().setLevel(level.upper())
    for chatty in ("httpx", "httpcore"):
        # Below WARNING they write out every URL and every header, and ours are other people's.
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))


def _forget_formatted(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Drop what the formatter of another handler left on the record, which `ExtraAdder` takes for extras."""
    event.pop("message", None)
    event.pop("asctime", None)
    return event


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Take secrets out of *event*: values under secret names at any depth, and what looks like one in text."""
    return {name: _clean(name, value, 0) for name, value in event.items()}


def _clean(name: object, value: Any, depth: int) -> Any:
    """*value*, which stands under *name*, made of JSON's types only and without secrets."""
    if _is_secret(name) and value is not None and not isinstance(value, bool):
        return REDACTED
    if isinstance(value, str):
        return _clean_text(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, Mapping | list | tuple | set | frozenset) and depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {_text(key): _clean(key, item, depth + 1) for key, item in value.items()}
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str | bytes):
        return [_clean("", value[0], depth + 1), _clean(value[0], value[1], depth + 1)]  # a header
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean("", item, depth + 1) for item in value]
    return _clean_text(_text(value))


def _clean_text(text: str) -> str:
    return _SECRET_TEXT.sub(lambda found: (found["scheme"] or found["name"] or found["user"]) + REDACTED, text)


def _is_secret(name: object) -> bool:
    last = _LAST_WORD.search(_text(name))
    return last is not None and last[0].lower() in _SECRET_NAMES


def _text(value: object) -> str:
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str) else repr(value)


def _json() -> list[Processor]:
    def order(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {name: event[name] for name in _LEADING if name in event} | dict(event)

    return [order, structlog.processors.JSONRenderer(serializer=json.dumps)]


def _console(*, colors: bool) -> list[Processor]:
    def escape(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """A caller's control characters must not drive the operator's terminal, nor fake a line of the log."""
        return {name: _printable(name, value) if isinstance(value, str) else value for name, value in event.items()}

    return [escape, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]


def _printable(name: str, value: str) -> str:
    value = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value)
    return value if name in ("exception", "stack") else value.replace("\n", "\\n").replace("\t", "\\t")
