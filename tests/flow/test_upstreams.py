"""Upstreams of a running server: requests reach them, the tree shows them, a reload brings and takes them."""

import http.server
import os
import signal
import socket
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
        if self.headers["upgrade"]:
            self.switch()
        elif self.path.endswith("/events"):
            self.stream()
        else:
            self.answer()

    def answer(self):
        body = f"{self.path} {self.headers['x-weir-subject']}".encode() * (20_000 if "big" in self.path else 1)
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def stream(self):
        """Server-sent events, the next when the client has seen the one before."""
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(3):
            self.wfile.write(b"8\r\ndata: %d\n\r\n" % number)
            assert self.server.seen.acquire(timeout=10)
        self.wfile.write(b"0\r\n\r\n")

    def switch(self):
        """A WebSocket, as far as a proxy sees one: bytes back."""
        self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
        while data := self.connection.recv(65536):
            self.connection.sendall(b"<" + data + b">")
        self.close_connection = True

    def do_POST(self):
        if self.headers["transfer-encoding"] == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(201)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@contextmanager
def upstream() -> Iterator[str]:
    """The URL of a server."""
    with upstream_server() as server:
        yield url_of(server)


def url_of(server: http.server.HTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


@contextmanager
def upstream_server() -> Iterator[http.server.HTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.seen = threading.Semaphore(0)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
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


def test_bodies_and_websockets_stream_through(tmp_path):
    with (
        upstream_server() as up,
        running(tmp_path, GENEROUS + route("/one", url_of(up)) + 'max_body = "64MiB"\n') as server,
        server.client() as client,
    ):
        with client.stream("GET", "/one/events") as events:
            for number, part in enumerate(events.iter_raw()):
                assert part == b"data: %d\n" % number
                up.seen.release()
        assert number == 2
        body = os.urandom(5_000_000)
        sent = client.post("/one", content=(body[at : at + 100_000] for at in range(0, len(body), 100_000)))
        assert sent.content == body

        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
            raw.sendall(
                b"GET /one/socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            heard = b""
            while not heard.endswith(b"\r\n\r\nhello"):
                heard += raw.recv(65536)
            assert heard.startswith(b"HTTP/1.1 101 ")
            raw.sendall(b"ping")
            assert raw.recv(65536) == b"<ping>"
        eventually(lambda: upstreams(server)[f"upstream:{url_of(up)}"]["outstanding"] == 0)
        assert client.get("/one").status_code == 200
