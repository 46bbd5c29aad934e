"""Upstreams of a running server: requests reach them, the tree shows them, a reload brings and takes them."""

import http.server
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pytest

from tests.flow.server import GENEROUS, Server, eventually, running

pytestmark = pytest.mark.process


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"{self.path} {self.headers['x-weir-subject']}".encode() * (20_000 if "big" in self.path else 1)
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(201)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@contextmanager
def upstream() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def route(prefix: str, url: str) -> str:
    return f'[[routes]]\nprefix = "{prefix}"\ntarget = "{url}"\nauth = "optional"\nhealth = "/healthz"\n'


def upstreams(server: Server) -> dict[str, dict]:
    with server.admin() as admin:
        root = admin.get("/tree").json()
    (routing,) = (node for node in root["children"] if node["id"] == "routing")
    (found,) = (node for node in routing["children"] if node["id"] == "upstreams")
    return {node["id"]: node["detail"] for node in found["children"]}


def test_upstreams_are_reached_shown_and_reloaded(tmp_path):
    with (
        upstream() as first,
        upstream() as second,
        running(tmp_path, GENEROUS + route("/one", first), allow_kill=True) as server,
    ):
        with server.client(server.token(subject="alice")) as client:
            assert client.get("/one/9").text == "/one/9 alice"
            assert len(client.get("/one/big").content) == 20_000 * len("/one/big alice")
            body = os.urandom(500_000)
            assert client.post("/one", content=body).content == body
            assert client.head("/one").headers["content-length"] == str(len("/one alice"))
            shown = upstreams(server)[f"upstream:{first}"]
            assert (shown["health"], shown["requests"], shown["outstanding"]) == ("healthy", 4, 0)

            with server.config.open("a") as file:
                file.write(route("/two", second))
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: upstreams(server).keys() == {f"upstream:{first}", f"upstream:{second}"})
            assert client.get("/two").text == "/two alice"

            with server.admin() as admin:
                killed = admin.post(f"/tree/{quote(f'upstream:{second}', safe='')}/kill")
            assert killed.status_code == 202, killed.text
            eventually(lambda: server.restarts()[f"upstream:{second}"] == 1)
            assert client.get("/two").text == "/two alice"

            server.config.write_text(server.config.read_text().replace(route("/one", first), ""))
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: upstreams(server).keys() == {f"upstream:{second}"})
            assert client.get("/one").status_code == 404
        assert server.stop() == 0


def test_an_upstream_that_is_away_is_told_as_a_problem(tmp_path):
    with upstream() as gone:
        pass
    with running(tmp_path, GENEROUS + route("/one", gone)) as server, server.client() as client:
        answer = client.get("/one")
        assert (answer.status_code, answer.headers["content-type"]) in (
            (502, "application/problem+json"),
            (503, "application/problem+json"),
        )
        shown = eventually(lambda: upstreams(server)[f"upstream:{gone}"])
        assert shown["last_error"]
