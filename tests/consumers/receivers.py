"""Receivers on real sockets, in this process: an HTTP endpoint and an SMTP relay; and what is sent to them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

from actors.consumers.notification.deliveries_of import Webhook
from actors.consumers.notification.mail import Mail
from actors.consumers.notification.smtp import SmtpSender
from actors.consumers.notification.webhook import WebhookSender
from backends.ports.stores import Delivery

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"type":"user.created","timestamp":"2024-01-01T00:00:00Z","data":{"id":"\xc3\xa9"}}'


def webhook_row(payload: bytes = BODY) -> Delivery:
    return Delivery(id="msg_1", channel="webhook", endpoint="a", event_id="", event_type="", source="", payload=payload)


class Endpoint:
    """A receiver that answers every connection with `answer` and notes what it was sent."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
        self.endless = self.silent = False
        self.port = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        data = b""
        async with stream:
            while b"\r\n\r\n" not in data:
                chunk = await stream.receive_some()
                if not chunk:
                    return
                data += chunk
            head, _, body = data.partition(b"\r\n\r\n")
            line, *lines = head.decode().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            while len(body) < int(headers["content-length"]):
                body += await stream.receive_some()
            self.requests.append((line, headers, body))
            if self.silent:
                await trio.sleep_forever()
            try:
                await stream.send_all(self.answer)
                while self.endless:
                    await stream.send_all(b"x" * 1000)
            except trio.BrokenResourceError:
                pass


@asynccontextmanager
async def sender(**options: Any) -> AsyncIterator[WebhookSender]:
    made = WebhookSender(**{"allow_private": True, "timeout": 5.0, **options})
    try:
        yield made
    finally:
        await made.aclose()


def hook(endpoint: Endpoint, host: str = "127.0.0.1", path: str = "/hook?x=1") -> Webhook:
    return Webhook(url=f"http://{host}:{endpoint.port}{path}", events=["*"], secret=SECRET, id="a")


def mail_row(to: str = "ada@example.org", body: str = "Hello\n.\n..dots\nÄnde\n") -> Delivery:
    payload = msgspec.json.encode(Mail(to, "Grüße", body, 1_700_000_000.0))
    return Delivery(
        id="msg_1", channel="email", endpoint="smtp/0", event_id="", event_type="", source="", payload=payload
    )


class Mailbox:
    """What the relay took, and over which connection (its peer); `refuse` is its answer to RCPT, `None` accepts;
    `answers` are those to single addresses, of which `drop` closes the connection and `hang` answers never."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.peers: list[Any] = []
        self.refuse: str | None = None
        self.answers: dict[str, str] = {}

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        match self.answers.get(address, self.refuse):
            case "drop":
                server.transport.abort()
                return "250 OK"
            case "hang":
                await asyncio.sleep(3600)
            case str(answer):
                return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.taken.append(envelope)
        self.peers.append(session.peer)
        return "250 OK"


class Relay(Controller):
    def __init__(self, *args: Any, **options: Any) -> None:
        # A loop by name: once trio-asyncio is imported, `new_event_loop` makes one that keeps to its thread, and
        # aiosmtpd runs it in another.
        super().__init__(*args, loop=asyncio.SelectorEventLoop(), **options)

    def factory(self) -> SMTP:
        return SMTP(self.handler, **{**self.SMTP_kwargs, "hostname": "relay.test", "enable_SMTPUTF8": True})

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]  # port 0: the system chose
        super()._trigger_server()


def smtp(relay: Relay, **options: Any) -> SmtpSender:
    return SmtpSender("127.0.0.1", relay.port, **{"sender": "weir@example.org", "timeout": 5.0, **options})
