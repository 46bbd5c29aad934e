"""The operator's side: settings that are wrong, a second server, the commands, signals, the admin listener."""

import os
import signal
import socket
import stat
import subprocess
import sys

import httpx
import pytest

from tests.flow.server import GENEROUS, ROOT, Server, eventually, running

pytestmark = pytest.mark.process


def refused(server: Server, *command: str) -> str:
    """Run the server (or *command*); it must end with code 2 and one line on stderr, which is returned."""
    ended = server.cli(*command)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    (line,) = ended.stderr.strip().splitlines()
    return line


# The comment is for the template that the file is mistaken for.
RULE = '# {{ nmae }}\n[[notifications.rules]]\nevents = ["*"]\nto = ["ops@example.org"]\n'


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ("server.bnid = 1\n", ["server.bnid", "server.bind"]),
        ("data.dir = 3\n", ["data.dir"]),
        ('[[limits]]\nname = "x"\nkey = "token"\nquota = 0\nwindow = "1m"\nburst = 1\n', ["limits", "quota"]),
        ("this is not toml\n", ["weir.toml", "line"]),
        ('[redis]\nurl = "http://localhost"\n', ["redis.url", "redis://", "sentinel"]),
        ('[redis]\nurl = "redis://:hush@localhost?colour=blue"\n', ["redis.url", "colour"]),
        ("server.workers = 2\n", ["server.workers"]),
        (RULE + 'template = "no.txt"\n', ["notifications.rules[0].template", "no.txt", "user.created"]),
        (RULE + 'template = "weir.toml"\n', ["notifications.rules[0].template", "weir.toml", "nmae", "name"]),
        ('[[routes]]\nprefix = "/users"\ntarget = "http://127.0.0.1:1"\n', ["/users"]),
        ('[[routes]]\nprefix = "/x"\ntarget = "asgi:no.such.module:app"\n', ["routes[0].target", "no.such.module"]),
        ('[[routes]]\nprefix = "/x"\ntarget = "service:nobody"\n', ["routes[0].target", "service:nobody", "users"]),
    ],
)
def test_wrong_settings_end_in_one_line_that_names_the_key(tmp_path, config, names):
    server = Server(tmp_path, config)
    for command in ((), ("check",)):
        line = refused(server, *command)
        for name in names:
            assert name in line


def test_a_port_in_use_is_named(tmp_path):
    server = Server(tmp_path)
    with socket.create_server(("127.0.0.1", server.port)):
        assert f"127.0.0.1:{server.port}" in refused(server)


def test_an_unusable_data_directory_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert "file" in refused(Server(tmp_path, 'data.dir = "file"\n'))


def test_a_database_that_is_none_is_named(tmp_path):
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "weir.db").write_bytes(b"This is not a database, it is a text. " * 100)
    assert "weir.db" in refused(Server(tmp_path))


def test_a_second_server_on_the_same_data_is_refused_and_the_first_goes_on(tmp_path):
    with running(tmp_path) as server:
        config = tmp_path / "second"
        config.mkdir()
        second = Server(config, f'data.dir = "{server.data}"\n{GENEROUS}')
        assert str(server.data) in refused(second)
        assert httpx.get(f"{server.admin_url}/healthz").status_code == 200


@pytest.mark.parametrize("command", ["--config {} dlq list", "token --config {} revoke", "client list --config {}"])
def test_config_is_taken_before_between_and_after_the_names_of_a_command(tmp_path, command):
    absent = tmp_path / "absent.toml"
    ended = subprocess.run(
        [sys.executable, str(ROOT / "supervisor.py"), *command.format(absent).split()],
        input="t", capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"weir: {absent}: no such file")


def test_commands_work_with_and_without_a_server(tmp_path):
    server = Server(tmp_path)
    offline = server.token("users:read")
    server.start()
    try:
        online = server.token("users:read")
        for token in (offline, online):
            with server.client(token) as client:
                assert client.get("/users").status_code == 200
        assert server.cli("tree").returncode == 0
        assert server.cli("check").returncode == 0
    finally:
        assert server.stop() == 0
    assert server.cli("token", "revoke", online).returncode == 0
    assert server.cli("token", "revoke", "never-issued").returncode == 2


def test_a_token_printed_is_all_that_is_printed(tmp_path):
    issued = Server(tmp_path).cli("token", "issue", "--subject", "s", "--scope", "users:read", "--ttl", "1h")
    assert len(issued.stdout.split()) == 1
    assert issued.stderr == ""


def test_secrets_are_the_owners_alone_and_never_logged(tmp_path):
    with running(tmp_path) as server:
        token = server.token("users:read")
        with server.client(token) as client:
            client.get("/users")
        for name in ("admin.token", "audit.key", "control.sock"):
            assert stat.S_IMODE(os.stat(server.data / name).st_mode) == 0o600
        log = server.log.read_text()
        assert token not in log
        assert (server.data / "admin.token").read_text().strip() not in log


def test_sigterm_drains_and_ends_with_zero_and_sighup_reloads(tmp_path):
    with running(tmp_path, "") as server, server.client(server.token("users:read")) as client:
        assert '"caller";q=600' in client.get("/users").headers["ratelimit-policy"]
        text = server.config.read_text()
        limit = '[[limits]]\nname = "caller"\nkey = "token"\nquota = 7\nwindow = "1m"\nburst = 7\n'
        server.config.write_text(text + limit)
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: '"caller";q=7' in client.get("/users").headers["ratelimit-policy"])
        server.config.write_text(text + "nonsense = 1\n" + limit)
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: "nonsense" in server.log.read_text())
        assert client.get("/users").headers["ratelimit-policy"].startswith('"caller";q=7'), "the old ones stay"
        assert server.stop() == 0
    assert not (server.data / "control.sock").exists()


def test_the_admin_listener_shows_the_tree_to_the_operator_alone(server):
    with server.admin() as admin:
        tree = admin.get("/tree").json()
        assert {"storage", "event_log", "publisher", "cache_manager", "rate_limiter", "authenticator", "router",
                "audit", "notification", "search", "front_end", "admin"} <= server.restarts().keys()  # fmt: skip
        assert tree["id"] == "root"
        assert admin.post("/tree/nobody/kill").status_code == 404
        assert admin.get("/", headers={"Accept": "text/html"}).status_code == 200
        assert "<code>detail</code> says where" in admin.get("/openapi").text
        stranger = admin.get("/tree", headers={"Host": f"evil.example:{server.admin_port}"})
        assert stranger.status_code == 421, "a page that rebinds its name must not reach the tree"
    assert httpx.get(f"{server.admin_url}/tree").status_code == 401
    assert httpx.post(f"{server.admin_url}/operations/token.issue", json={}).status_code == 401
    for path in ("/healthz", "/readyz", "/metrics"):
        assert httpx.get(f"{server.admin_url}{path}").status_code == 200


def test_killing_is_off_unless_allowed(tmp_path):
    with running(tmp_path) as server, server.admin() as admin:
        assert admin.post("/tree/router/kill").status_code == 403


def test_a_connection_to_the_admin_listener_is_closed_when_the_client_asks(server):
    with socket.create_connection(("127.0.0.1", server.admin_port), timeout=5) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_listener_that_keeps_dying_ends_the_process_with_code_1_and_one_clear_line(tmp_path):
    server = Server(tmp_path, allow_kill=True)
    server.start()
    with server.admin() as admin:

        def ended() -> bool:
            try:
                admin.post("/tree/front_end/kill")
            except httpx.TransportError:
                pass
            return server.process.poll() is not None

        eventually(ended, within=30, every=0.2)
    assert server.process.returncode == 1
    (line,) = [line for line in server.log_lines() if line["level"] == "critical"]
    assert "front_end failed once too often" in line["problem"]


ODD_COMMANDS = {
    "bytes that are no text": 'token revoke "$(printf "\\xff")"',
    "no standard input": "token revoke <&-",
    "nothing to confirm on": "dlq drop --all <&-",
    "a dry run of what is not there": "dlq drop --dry-run audit.audit.dlt/0/7",
    "a full disk": "token issue --subject s > /dev/full",
}


@pytest.mark.parametrize("command", ODD_COMMANDS.values(), ids=ODD_COMMANDS.keys())
def test_odd_commands_end_without_a_traceback(server, command):
    line = f'"{sys.executable}" "{ROOT}/supervisor.py" --config "{server.config}" {command}'
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in ended.stderr
    assert ended.returncode == (0 if "--all" in command else 2), ended.stderr
