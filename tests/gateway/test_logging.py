"""Log lines: one chain for structlog and the standard library, JSON or console, and no secrets."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from gateway.logging import REDACTED, configure_logging, redact, set_level

TOKEN = "weir_0123456789abcdef0123456789abcdef"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def the_logging_of_the_process() -> Iterator[None]:
    """Put back what `configure_logging` changes, which is process-wide by nature."""
    root = logging.getLogger()
    loggers = [root, logging.getLogger("httpx"), logging.getLogger("httpcore")]
    handlers, levels = root.handlers[:], [logger.level for logger in loggers]
    yield
    root.handlers = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    structlog.reset_defaults()


def lines(write: Callable[[], None], level: str = "info") -> list[dict[str, Any]]:
    """What *write* logs, in the JSON format."""
    stream = io.StringIO()
    configure_logging(level, "json", stream)
    write()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def console(write: Callable[[], None], stream: io.StringIO) -> str:
    configure_logging("info", "console", stream)
    write()
    return stream.getvalue()


def test_both_libraries_write_the_same_kind_of_line() -> None:
    def write() -> None:
        structlog.get_logger("gateway.pipeline").warning("answered %d", 504, route="/users")
        logging.getLogger("actors.runtime").warning("answered %d", 504, extra={"route": "/users"})

    ours, theirs = lines(write)
    assert list(ours)[:4] == list(theirs)[:4] == ["timestamp", "level", "logger", "event"]
    assert (ours.pop("logger"), theirs.pop("logger")) == ("gateway.pipeline", "actors.runtime")
    for line in (ours, theirs):
        assert datetime.fromisoformat(line.pop("timestamp")).utcoffset() == timedelta(0)
        assert line == {"level": "warning", "event": "answered 504", "route": "/users"}


def test_auto_is_console_on_a_terminal_and_json_elsewhere() -> None:
    pipe, terminal = io.StringIO(), Terminal()
    for stream in (pipe, terminal):
        configure_logging("info", "auto", stream)
        structlog.get_logger().info("started", port=8000)
    assert json.loads(pipe.getvalue())["port"] == 8000
    assert "started" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_colours_are_for_terminals() -> None:
    def write() -> None:
        structlog.get_logger().info("started", port=8000)

    assert "\x1b[" in console(write, Terminal())
    assert "\x1b" not in console(write, io.StringIO())


def test_configuring_again_replaces_our_handler_and_leaves_the_others() -> None:
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    first, second = io.StringIO(), io.StringIO()
    log = structlog.get_logger()
    configure_logging("info", "json", first)
    log.info("one")
    configure_logging("info", "json", second)
    log.info("two")
    assert [json.loads(line)["event"] for line in first.getvalue().splitlines()] == ["one"]
    assert [json.loads(line)["event"] for line in second.getvalue().splitlines()] == ["two"]
    assert other in logging.getLogger().handlers


def test_the_level_changes_at_run_time_for_loggers_already_in_use() -> None:
    log, runtime = structlog.get_logger("x"), logging.getLogger("actors.runtime")

    def write() -> None:
        for level in ("info", "debug", "error"):
            set_level(level)
            log.debug(f"structlog {level}")
            runtime.debug(f"stdlib {level}")

    assert [line["event"] for line in lines(write)] == ["structlog debug", "stdlib debug"]


def test_an_unknown_level_is_an_error() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        set_level("loud")


def test_http_clients_stay_quiet_even_at_debug() -> None:
    def write() -> None:
        logging.getLogger("httpx").info("HTTP Request: GET https://hooks.example/T0/B0/key")
        logging.getLogger("httpcore.http11").debug("response headers …")
        logging.getLogger("httpx").warning("heard")

    assert [line["event"] for line in lines(write, "debug")] == ["heard"]


# -- Secrets


@pytest.mark.parametrize(
    "name",
    ["token", "authorization", "secret", "password", "cookie", "Token", "access_token", "client-secret", "Set-Cookie",
     "Proxy-Authorization", "cookies"],
)  # fmt: skip
def test_a_value_under_a_secret_name_is_taken_out(name: str) -> None:
    assert redact(None, "info", {"event": "e", name: TOKEN}) == {"event": "e", name: REDACTED}


@pytest.mark.parametrize("name", ["token_kind", "tokenizer", "subject", "secretary", "digest"])
def test_other_names_keep_their_value(name: str) -> None:
    assert redact(None, "info", {name: "value"}) == {name: "value"}


@pytest.mark.parametrize(
    ("value", "clean"),
    [
        ({"headers": {"Authorization": "x", "Accept": "y"}}, {"headers": {"Authorization": REDACTED, "Accept": "y"}}),
        ([(b"cookie", b"sid=1"), (b"accept", b"*/*")], [["cookie", REDACTED], ["accept", "*/*"]]),
        ((b"authorization", b"x"), ["authorization", REDACTED]),
        ([{"deep": [{"password": 1234}]}], [{"deep": [{"password": REDACTED}]}]),
        (f"got Bearer {TOKEN} there", "got Bearer *** there"),
        (f"authorization: basic {TOKEN}".encode(), "authorization: basic ***"),
        (f"GET /x?access_token={TOKEN}&page=2", "GET /x?access_token=***&page=2"),
        (f"Client(id='a', secret='{TOKEN}')", "Client(id='a', secret=***)"),
        ("postgres://weir:hunter2@db/weir", "postgres://***@db/weir"),
        ("basic authentication is a scheme", "basic authentication is a scheme"),
        (float("nan"), "nan"),
        ({"password": None}, {"password": None}),
        ({1: "a"}, {"1": "a"}),
    ],
)
def test_secrets_inside_a_value_are_taken_out_and_the_rest_stays(value: object, clean: object) -> None:
    assert redact(None, "info", {"value": value}) == {"value": clean}


def test_a_value_that_contains_itself_ends() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert json.dumps(redact(None, "info", {"value": loop})).count("[") == 6


def test_tracebacks_show_neither_locals_nor_tokens() -> None:
    def write() -> None:
        local = "hunter2" * 2
        for log in (structlog.get_logger(), logging.getLogger("x")):
            try:
                raise ValueError(f"cannot use Bearer {TOKEN}", len(local))
            except ValueError:
                log.exception("failed")

    written = lines(write)
    assert [line["level"] for line in written] == ["error", "error"]
    for text in [line["exception"] for line in written] + [console(write, Terminal())]:
        assert "Traceback (most recent call last)" in text
        assert "cannot use Bearer ***" in text
        assert TOKEN not in text
        assert "hunter2hunter2" not in text


def test_messages_of_the_standard_library_are_cleaned_too() -> None:
    (line,) = lines(lambda: logging.getLogger("x").error("refused: Bearer %s", TOKEN, extra={"token": TOKEN}))
    assert (line["event"], line["token"]) == ("refused: Bearer ***", REDACTED)


def test_a_callers_control_characters_reach_the_terminal_escaped() -> None:
    def write() -> None:
        structlog.get_logger().info("no route", path="/a\x1b[2J\nb")
        logging.getLogger("x").warning("no route to \x1b]0;owned\x07\nfake line")

    text = console(write, io.StringIO())
    assert len(text.splitlines()) == 2
    assert r"/a\x1b[2J\nb" in text
    assert r"\x1b]0;owned\x07\nfake line" in text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(object()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.binary() | st.integers(), inner, max_size=3)
        | st.tuples(st.text(), inner)
    ),
)


@given(VALUES)
def test_any_value_becomes_strict_json(value: object) -> None:
    text = json.dumps(redact(None, "info", {"value": value}), allow_nan=False)
    assert "\n" not in text
