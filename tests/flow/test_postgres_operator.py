"""The operator's side of PostgreSQL: settings that cannot work, a database that is not there, the commands."""

import signal
from pathlib import Path

import httpx
import pytest

from tests.engines import free_port
from tests.engines import postgres as engine
from tests.flow.server import GENEROUS, Server, eventually

pytestmark = pytest.mark.process


def configured(folder: Path, dsn: str) -> Server:
    """A bus is named and not there: neither a command nor the start waits for it."""
    return Server(folder, f'{GENEROUS}[postgres]\ndsn = "{dsn}"\n[kafka]\nbootstrap = "127.0.0.1:{free_port()}"\n')


def refused(server: Server, *command: str) -> str:
    """It must end with code 2 and one line on stderr, which is returned."""
    ended = server.cli(*command)
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("weir: ")
    assert "secret" not in ended.stdout + ended.stderr
    return line


ISSUE = ("token", "issue", "--subject", "s")


@pytest.mark.engines
@pytest.mark.parametrize("command", [(), ISSUE], ids=["run", "token issue"])
def test_a_wrong_password_an_absent_database_and_a_newer_schema_end_with_code_2(
    postgres: engine.Server, tmp_path: Path, command: tuple[str, ...]
) -> None:
    name = postgres.create_database()
    cases = {
        "correct the user or the password": postgres.dsn(name, password="wrong-secret"),
        "create the database": postgres.dsn("absent", password=engine.PASSWORD),
        "run the Weir that wrote it": postgres.dsn(name),
    }
    postgres.execute("CREATE SCHEMA weir AUTHORIZATION weir", name)
    postgres.execute("CREATE TABLE weir.schema_version AS SELECT 1000 AS version", name)
    postgres.execute("ALTER TABLE weir.schema_version OWNER TO weir", name)
    for number, (says, dsn) in enumerate(cases.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        line = refused(configured(folder, dsn), *command)
        assert "postgres.dsn (weir@127.0.0.1" in line
        assert says in line


def test_a_database_nobody_answers_for_is_named_by_a_command(tmp_path: Path) -> None:
    port = free_port()
    line = refused(configured(tmp_path, f"postgresql://weir:secret@127.0.0.1:{port}/weir"), *ISSUE)
    assert f"postgres.dsn (weir@127.0.0.1:{port}/weir)" in line


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ('[postgres]\ndsn = "postgresql://me:secret@h/weir"\n', ("kafka.bootstrap", "PostgreSQL with Kafka")),
        ('[kafka]\nbootstrap = "h:9092"\n', ("postgres.dsn", "PostgreSQL with Kafka")),
        ('[postgres]\ndsn = "me:secret@h"\n', ("postgres.dsn", "postgresql://")),
    ],
)
def test_half_of_the_engines_is_one_line(tmp_path: Path, config: str, names: tuple[str, ...]) -> None:
    for command in ((), ("check",)):
        line = refused(Server(tmp_path, config), *command)
        assert all(name in line for name in names), line


def test_a_database_that_is_away_is_waited_for_and_a_signal_ends_the_waiting(tmp_path: Path) -> None:
    server = configured(tmp_path, f"postgresql://weir:secret@127.0.0.1:{free_port()}/weir")
    server.start(wait=False)

    def waiting() -> bool:
        answer = httpx.get(f"{server.admin_url}/readyz")
        return answer.status_code == 503 and "postgres.dsn (weir@127.0.0.1" in answer.text

    eventually(waiting)
    assert httpx.get(f"{server.admin_url}/healthz").status_code == 200
    assert server.stop() == 0
    assert "secret" not in server.log.read_text()


@pytest.mark.engines
def test_commands_work_without_a_server_and_without_the_bus(postgres: engine.Server, tmp_path: Path) -> None:
    server = configured(tmp_path, postgres.dsn(postgres.create_database()))
    issued = server.cli(*ISSUE)
    assert (issued.returncode, issued.stderr, len(issued.stdout.split())) == (0, "", 1)
    assert server.cli("token", "revoke", issued.stdout.strip()).returncode == 0
    assert server.cli("token", "revoke", "never-issued").returncode == 2
    assert server.cli("client", "create", "--name", "n", "--scope", "users:read").returncode == 0


@pytest.mark.engines
def test_a_server_that_was_killed_leaves_no_lock_behind(postgres: engine.Server, tmp_path: Path) -> None:
    server = configured(tmp_path, postgres.dsn(postgres.create_database()))
    for _ in range(2):
        server.start()
        with server.client(server.token("users:write")) as client:
            body = {"name": "n", "email": "n@example.com", "bio": ""}
            eventually(lambda client=client, body=body: client.post("/users", json=body).status_code == 201)
        assert server.process is not None
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(10)
