"""Sending e-mails through an SMTP relay."""

import ssl
from collections.abc import Sequence
from typing import Any

import trio
from smtpproto.protocol import SMTPClientProtocol, SMTPResponse

from actors.consumers.failure import Failure, failure_of
from actors.consumers.notification.mail import compose
from actors.consumers.notification.message import Message
from actors.consumers.notification.outcomes import Failed, Outcome, Refused, Sent
from actors.consumers.retry import Permanent
from backends.ports.stores import Delivery


class SmtpSender:
    """One connection a message: a shared one hangs for all when the relay drops it.

    Args:
        timeout: seconds for the whole exchange.
        tls: used where the relay offers STARTTLS; None never uses it.
        sender: the From and envelope address.
    """

    batch = 1

    def __init__(
        self,
        host: str,
        port: int,
        *,
        sender: str = "weir@localhost",
        timeout: float = 15.0,
        tls: ssl.SSLContext | None = None,
        client_name: str = "localhost",
    ) -> None:
        self._host = host
        self._port = port
        self._sender = sender
        self._timeout = timeout
        self._tls = tls
        self._client_name = client_name

    async def send(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        return [await self._send(delivery) for delivery in deliveries]

    async def _send(self, delivery: Delivery) -> Outcome:
        try:
            message = compose(delivery, self._sender)
            with trio.move_on_after(self._timeout) as scope:
                await self._exchange(message)
        except Permanent as error:
            return Refused(failure_of(error))
        except Exception as error:
            # Whatever a relay or the network does, another attempt may find them better.
            return Failed(failure_of(error))
        if scope.cancelled_caught:
            relay = f"{self._host}:{self._port}"
            return Failed(Failure("TimeoutError", f"{relay} did not take the e-mail within {self._timeout} s"))
        return Sent()

    async def _exchange(self, message: Message) -> None:
        stream: trio.abc.Stream = await trio.open_tcp_stream(self._host, self._port)
        session = _Session(stream)
        try:
            await session.answer()
            await session.command("send_greeting", self._client_name)
            if self._tls is not None and "STARTTLS" in session.protocol.extensions:
                await session.command("start_tls")
                session.stream = trio.SSLStream(stream, self._tls, server_hostname=self._host)
                await session.command("send_greeting", self._client_name)
            if message.utf8 and "SMTPUTF8" not in session.protocol.extensions:
                raise SmtpRefused("the address is not ASCII, and the relay does not offer SMTPUTF8 (RFC 6531)")
            await session.mail(message)
            # Taken: the relay answers for it from here on. QUIT is a courtesy, its failure no failure.
            with trio.move_on_after(1.0):
                await session.quit()
        finally:
            await trio.aclose_forcefully(session.stream)


class SmtpRefused(Permanent):
    """The relay answered with a 5yz code: it will refuse the same e-mail again (RFC 5321 §4.2.1)."""


class SmtpFailed(Exception):
    """The relay answered with a 4yz code, or went away."""


class _Session:
    """smtpproto's state machine on a trio stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.protocol = SMTPClientProtocol()

    async def mail(self, message: Message) -> None:
        self.protocol.mail(message.sender, smtputf8=message.utf8)
        await self.exchange()
        await self.command("recipient", message.recipient)
        await self.command("start_data")
        await self.command("data", _Composed(message.content))

    async def command(self, name: str, *args: Any) -> None:
        getattr(self.protocol, name)(*args)
        await self.exchange()

    async def exchange(self) -> None:
        """Send what the protocol has for the relay, and take the relay's answer."""
        await self.stream.send_all(self.protocol.get_outgoing_data())
        await self.answer()

    async def answer(self) -> SMTPResponse:
        while True:
            data = await self.stream.receive_some(4096)
            if not data:
                raise SmtpFailed("the relay closed the connection")
            response = self.protocol.feed_bytes(bytes(data))
            if response is None:
                if outgoing := self.protocol.get_outgoing_data():  # HELO after a refused EHLO
                    await self.stream.send_all(outgoing)
                continue
            if response.is_error():
                raise (SmtpRefused if response.code >= 500 else SmtpFailed)(f"{response.code} {response.message}")
            return response

    async def quit(self) -> None:
        try:
            await self.command("quit")
        except Exception:  # noqa: S110 - the e-mail was taken
            pass


class _Composed:
    """What smtpproto asks of a message: its bytes, and that it has no Bcc to take out."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __contains__(self, header: str) -> bool:
        return False

    def as_bytes(self, policy: object) -> bytes:
        return self._content


def opportunistic_tls() -> ssl.SSLContext:
    """TLS without a look at the certificate (RFC 7435): a relay in the neighbourhood rarely has one that any
    authority signed, and encryption without authentication still beats the clear text it replaces."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
