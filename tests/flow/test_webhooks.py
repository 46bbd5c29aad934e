"""A webhook that always fails ends in dead letters and hurts no other; once it recovers, replay delivers it."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from standardwebhooks.webhooks import Webhook

from tests.flow.server import GENEROUS, eventually, running

pytestmark = pytest.mark.process


class Endpoint:
    """A receiver of webhooks that notes what it got and answers as it is told."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status = 204
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                endpoint.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(endpoint.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def names(self) -> list[str]:
        return [json.loads(body)["data"]["entity"]["name"] for _, body in self.got]


@pytest.fixture
def endpoints() -> Iterator[tuple[Endpoint, Endpoint]]:
    pair = Endpoint(), Endpoint()
    yield pair
    for endpoint in pair:
        endpoint.close()


def test_a_failing_endpoint_ends_in_dead_letters_and_a_healthy_one_gets_each_event_once(tmp_path, endpoints):
    broken, healthy = endpoints
    broken.status = 500
    config = GENEROUS + "\n[notifications]\nallow_private_endpoints = true\n"
    with running(tmp_path, config) as server, server.client(server.token()) as client:
        secrets = {}
        for endpoint in endpoints:
            made = client.post("/webhooks", json={"url": endpoint.url, "events": ["user.*"]})
            assert made.status_code == 201, made.text
            secrets[endpoint] = made.json()["secret"]
        for name in ("first", "second", "third"):
            client.post("/users", json={"name": name, "email": "n@example.com", "bio": ""})

        eventually(lambda: len(healthy.got) == 3)
        assert sorted(healthy.names()) == ["first", "second", "third"]
        headers, body = healthy.got[0]
        Webhook(secrets[healthy]).verify(body, headers)
        assert base64.b64decode(secrets[healthy].removeprefix("whsec_"))

        def dead() -> list[str]:
            listed = server.cli("dlq", "list", "--group", "notification")
            assert listed.returncode == 0, listed.stderr
            return listed.stdout.splitlines()

        eventually(lambda: len(dead()) == 3, within=30)
        assert all("500" in line for line in dead())
        assert len(broken.got) == 9, "three attempts each"
        ids = {headers["webhook-id"] for headers, _ in broken.got}
        assert len(ids) == 3, "the id is constant over attempts"
        id = dead()[0].split("\t")[0]
        shown = json.loads(server.cli("dlq", "show", id).stdout)
        assert shown["attempts"] == 3
        assert all(name.startswith("ce_") or name == "content-type" for name in shown["headers"]), "text alone"
        assert server.cli("dlq", "replay", "--all", "--dry-run").stdout.split() == [
            line.split("\t")[0] for line in dead()
        ]

        broken.status = 204
        broken.got.clear()
        replayed = server.cli("dlq", "replay", "--all", "--yes")
        assert replayed.stdout.strip() == "replayed 3", replayed.stderr
        eventually(lambda: len(broken.got) == 3)
        assert dead() == []
        assert len(healthy.got) == 3, "the healthy endpoint gets nothing again"


def test_a_secret_is_replaced_without_a_gap_and_410_ends_the_calls_until_the_owner_wants_them_again(
    tmp_path, endpoints
):
    endpoint, _ = endpoints
    config = GENEROUS + "\n[notifications]\nallow_private_endpoints = true\n"
    with running(tmp_path, config) as server, server.client(server.token()) as client:
        made = client.post("/webhooks", json={"url": endpoint.url, "events": ["user.*"]}).json()
        rotated = client.post(f"/webhooks/{made['id']}/secret").json()
        client.post("/users", json={"name": "both", "email": "n@example.com"})
        eventually(lambda: len(endpoint.got) == 1)
        headers, body = endpoint.got[0]
        assert len(headers["webhook-signature"].split()) == 2
        for secret in (made["secret"], rotated["secret"]):
            Webhook(secret).verify(body, headers)

        endpoint.status = 410
        client.post("/users", json={"name": "gone", "email": "n@example.com"})
        eventually(lambda: client.get(f"/webhooks/{made['id']}").json()["state"] == "disabled")
        assert "410" in client.get(f"/webhooks/{made['id']}").json()["disabled_reason"]
        client.post("/users", json={"name": "unheard", "email": "n@example.com"})
        eventually(lambda: server.cli("dlq", "list", "--group", "notification").stdout.count("410") == 1)
        asked = {"entity": f"webhook/{made['id']}", "action": "webhook.disable"}
        eventually(lambda: len(client.get("/audit", params=asked).json()["items"]) == 1)

        endpoint.status = 204
        assert client.patch(f"/webhooks/{made['id']}", json={"state": "active"}).json()["state"] == "active"
        client.post("/users", json={"name": "again", "email": "n@example.com"})
        eventually(lambda: "again" in endpoint.names())
        assert endpoint.names() == ["both", "gone", "again"]


def test_e_mails_are_written_as_the_rules_say(tmp_path):
    (tmp_path / "moved.txt").write_text("{{ name }} moved\nfrom {{ previous.email }} to {{ email }}, says {{ by }}\n")
    rule = '[[notifications.rules]]\nevents = ["user.*"]\nto = ["ops@example.org"]\ntemplate = "moved.txt"\n'
    with (
        running(tmp_path, f'{GENEROUS}\n{rule}changed = ["email"]\n') as server,
        server.client(server.token()) as client,
    ):
        # Of a creation there is no `previous.email`: that template cannot be rendered, and says so.
        user = client.post("/users", json={"name": "Ada", "email": "ada@example.com"}).json()
        client.patch(f"/users/{user['id']}", json={"bio": "not told"})
        client.patch(f"/users/{user['id']}", json={"email": "ada@example.org"})
        outbox = server.data / "outbox"
        eventually(lambda: outbox.is_dir() and list(outbox.glob("*.eml")))
        (mail,) = outbox.glob("*.eml")
        head, _, text = mail.read_text().partition("\n\n")
        assert "To: ops@example.org" in head
        assert "Subject: Ada moved" in head
        assert text.startswith("from ada@example.com to ada@example.org, says ")
        eventually(lambda: "moved.txt" in server.cli("dlq", "list", "--group", "notification").stdout)


def test_mail_is_written_to_the_outbox_without_an_smtp_server(tmp_path):
    with running(tmp_path) as server, server.client(server.token()) as client:
        client.post("/users", json={"name": "Ada", "email": "ada@example.com", "bio": ""})
        outbox = server.data / "outbox"
        eventually(lambda: outbox.is_dir() and list(outbox.glob("*.eml")))
        (mail,) = outbox.glob("*.eml")
        assert "To: ada@example.com" in mail.read_text()
