"""The operator's app and operations, with nobody's system behind them: who may ask, and what odd input gets."""

from typing import Any

import msgspec
import pytest
from quart_trio import QuartTrio

from gateway.admin.access import AdminToken, host_matches
from gateway.admin.app import create_app
from gateway.admin.dead_letter_operations import DeadLetterOperations
from gateway.admin.operations import OperationError, Operations
from gateway.admin.token_operations import TokenOperations
from gateway.services.auth.writes import MAX_TTL_S

HOST = {"Host": "127.0.0.1:8001"}
OPERATOR = {"Authorization": "Bearer open sesame", **HOST}


async def echo(text: str) -> dict[str, str]:
    return {"text": text}


async def broken() -> None:
    raise RuntimeError("a bug")


def nobody(id: str) -> Any:
    raise AssertionError(f"{id} was asked")


@pytest.fixture
def app() -> QuartTrio:
    operations = Operations({"echo": echo, "broken": broken, **DeadLetterOperations(nobody).by_name()})
    token = AdminToken("open sesame")
    return create_app(None, operations, token, bind="127.0.0.1:8001", allow_kill=False)  # type: ignore[arg-type]


BODIES = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": b"[]",
    "too deep": b"[" * 200_000,
    "no UTF-8": b'{"text": "\xff"}',
    "half a surrogate pair": b'{"text": "\\ud800"}',
    "a wrong type": b'{"text": 1}',
    "a missing argument": b"{}",
    "one too many": b'{"text": "a", "more": 1}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_odd_arguments_are_a_problem(app: QuartTrio, body: bytes) -> None:
    answer = await app.test_client().post("/operations/echo", data=body, headers=OPERATOR)
    assert (answer.status_code, answer.content_type) == (400, "application/problem+json")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/operations/echo", b"x" * (2 << 20), 413),
        ("POST", "/operations/broken", b"{}", 500),
        ("GET", "/operations/echo", b"", 405),
        ("GET", "/nothing", b"", 404),
    ],
)
async def test_every_error_is_a_problem(app: QuartTrio, method: str, path: str, body: bytes, status: int) -> None:
    answer = await app.test_client().open(path, method=method, data=body, headers=OPERATOR)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert msgspec.json.decode(await answer.get_data())["status"] == status


async def test_a_wrong_method_is_told_the_right_ones(app: QuartTrio) -> None:
    answer = await app.test_client().get("/tree/router/kill", headers=OPERATOR)
    assert (answer.status_code, answer.headers["allow"]) == (405, "OPTIONS, POST")


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Bearer wrong", "Basic open sesame", "open sesame"])
async def test_who_does_not_hold_the_token_is_refused(app: QuartTrio, authorization: str) -> None:
    headers = {**HOST, "Authorization": authorization}
    answer = await app.test_client().post("/operations/echo", data=b'{"text": "a"}', headers=headers)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("host", "bind", "matches"),
    [
        ("127.0.0.1:8001", "127.0.0.1:8001", True),
        ("localhost:8001", "[::1]:8001", True),
        ("127.0.0.1:8002", "127.0.0.1:8001", False),
        ("evil.example:8001", "127.0.0.1:8001", False),
        ("127.0.0.1", "127.0.0.1:8001", False),
        ("10.1.2.3:8001", "127.0.0.1:8001", False),
        ("10.1.2.3:8001", "0.0.0.0:8001", True),
        ("[fd00::1]:8001", "[::]:8001", True),
        ("evil.example:8001", "0.0.0.0:8001", False),
        (None, "0.0.0.0:8001", False),
    ],
)
def test_the_host_must_be_an_address_of_ours_or_the_name_we_are_bound_to(
    host: str | None, bind: str, matches: bool
) -> None:
    assert host_matches(host, bind) is matches


@pytest.mark.parametrize(
    "id",
    ["", "x", "audit/0/0", "a.dlt/0", "a.dlt/-1/0", "a.dlt/²/0", "a.dlt/٣/0", "a.dlt/0/" + "9" * 30, "a.dlt/0/0/0"],
)
async def test_what_is_no_dead_letters_id_is_said_so_without_asking_the_log(id: str) -> None:
    with pytest.raises(OperationError, match="is not the id of a dead letter"):
        await DeadLetterOperations(nobody).show(id)


async def test_arguments_that_no_shell_could_have_meant_are_refused() -> None:
    with pytest.raises(OperationError, match="not UTF-8"):
        await Operations({"echo": echo}).call("echo", {"text": "\udcff"})


@pytest.mark.parametrize("ttl", ["0s", "-1h", "1x", "", f"{MAX_TTL_S + 1}s", "9" * 400 + "d"])
async def test_a_lifetime_that_cannot_be_is_refused(ttl: str) -> None:
    tokens = TokenOperations(nobody, lambda: 0.0, lambda: "id", cached=False)
    with pytest.raises(OperationError):
        await tokens.issue("ada", [], ttl)


@pytest.mark.parametrize("name", ["", "two\nlines", "a\ttab", "x" * 201])
async def test_a_clients_name_fits_a_line(name: str) -> None:
    tokens = TokenOperations(nobody, lambda: 0.0, lambda: "id", cached=False)
    with pytest.raises(OperationError, match="printable"):
        await tokens.create(name, [])
