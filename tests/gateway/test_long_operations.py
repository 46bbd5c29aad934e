"""Operations that take long: how far they are is streamed, and who goes away cancels them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio

from actors.metrics import Metrics
from actors.runtime import Child, Mailbox, Supervisor, open_system
from backends.ports.stores import Progress
from gateway.admin.access import AdminToken
from gateway.admin.app import create_app
from gateway.admin.operations import OperationError, Operations
from gateway.admin.remote import RemoteOperations
from gateway.asgi import shield_send
from gateway.asgi_types import App
from gateway.front_end import FrontEnd
from gateway.sockets import open_sockets

HOST = {"Host": "127.0.0.1:8001", "Authorization": "Bearer open sesame"}


class Work:
    """Operations to be watched: `steps` take half a second each."""

    def __init__(self) -> None:
        self.cancelled = trio.Event()
        self.begun = trio.Event()

    async def count(self, progress: Progress, to: int, fail: str = "") -> dict[str, int]:
        for done in range(to):
            progress(done, to)
            await trio.sleep(0.6)
        if fail == "refuse":
            raise OperationError("it cannot be done")
        if fail == "bug":
            raise RuntimeError("a secret")
        return {"counted": to}

    async def hang(self, progress: Progress) -> None:
        self.begun.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()


@pytest.fixture
def work() -> Work:
    return Work()


def app_of(work: Work) -> App:
    operations = Operations({"count": work.count, "hang": work.hang})
    token = AdminToken("open sesame")
    app = create_app(None, operations, token, bind="127.0.0.1:8001", allow_kill=False, trusted=True)  # type: ignore[arg-type]
    return shield_send(cast(App, app), deadline=5.0)


@asynccontextmanager
async def server(work: Work, path: Path) -> AsyncIterator[RemoteOperations]:
    """A real listener on a control socket, and the command line's way to it."""
    (sock,) = open_sockets([f"unix:{path}"])
    child = Child("c", lambda: FrontEnd("control", lambda _: app_of(work), [sock], Metrics()), mailbox=Mailbox(8))
    with sock, trio.fail_after(30):
        async with open_system(Supervisor("root", children=[child])), RemoteOperations(path) as remote:
            yield remote


async def test_the_command_line_sees_how_far_it_is_and_then_the_result(work: Work, tmp_path: Path) -> None:
    async with server(work, tmp_path / "c.sock") as remote:
        told: list[tuple[int, int]] = []
        answer = await remote.call("count", {"to": 4}, lambda done, total: told.append((done, total)))
    assert answer == {"counted": 4}
    assert told == sorted(told)
    assert told
    assert told[-1][1] == 4


@pytest.mark.parametrize(("fail", "message"), [("refuse", "it cannot be done"), ("bug", "the server failed")])
async def test_an_error_in_the_midst_is_the_operations_own(work: Work, tmp_path: Path, fail: str, message: str) -> None:
    async with server(work, tmp_path / "c.sock") as remote:
        with pytest.raises(OperationError, match=message):
            await remote.call("count", {"to": 1, "fail": fail})
        with pytest.raises(OperationError, match="there is no operation 'cuont'"):
            await remote.call("cuont", {})
        assert await remote.call("count", {"to": 0}) == {"counted": 0}


async def test_who_goes_away_cancels_it(work: Work, tmp_path: Path) -> None:
    async with server(work, tmp_path / "c.sock") as remote, trio.open_nursery() as nursery:
        nursery.start_soon(remote.call, "hang", {})
        await work.begun.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await work.cancelled.wait()


async def test_a_server_that_goes_down_ends_it_with_one_line(work: Work, tmp_path: Path) -> None:
    errors: list[str] = []
    ended = trio.Event()

    async def call(remote: RemoteOperations) -> None:
        try:
            await remote.call("hang", {})
        except OperationError as error:
            errors.append(str(error))
            ended.set()

    async with trio.open_nursery() as nursery:
        path = tmp_path / "c.sock"
        async with RemoteOperations(path) as remote:
            async with server(work, path):
                nursery.start_soon(call, remote)
                await work.begun.wait()
            with trio.fail_after(10):
                await work.cancelled.wait()
                await ended.wait()
    assert len(errors) == 1
    assert "went away" in errors[0]


async def test_who_does_not_ask_for_lines_gets_the_result_alone(work: Work) -> None:
    operations = Operations({"count": work.count})
    token = AdminToken("open sesame")
    app = create_app(None, operations, token, bind="127.0.0.1:8001", allow_kill=False)  # type: ignore[arg-type]
    answer = await app.test_client().post("/operations/count", data=b'{"to": 1}', headers=HOST)
    assert msgspec.json.decode(await answer.get_data()) == {"counted": 1}
    lines = await app.test_client().post(
        "/operations/count", data=b'{"to": 1}', headers=HOST | {"Accept": "application/x-ndjson"}
    )
    assert lines.content_type == "application/x-ndjson"
    assert msgspec.json.decode((await lines.get_data()).splitlines()[-1]) == {"result": {"counted": 1}}


async def test_progress_is_no_argument_of_a_client(work: Work) -> None:
    with pytest.raises(OperationError, match="takes no argument 'progress'"):
        await Operations({"count": work.count}).call("count", {"to": 1, "progress": 1})
