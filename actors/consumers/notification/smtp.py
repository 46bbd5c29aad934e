"""Sending e-mails through an SMTP relay."""

import ssl
from collections.abc import Sequence
from typing import Any, NamedTuple

import trio
from smtpproto.protocol import ClientState, SMTPClientProtocol, SMTPResponse

from actors.consumers.failure import Failure, failure_of
from actors.consumers.notification.mail import compose
from actors.consumers.notification.message import Message
from actors.consumers.notification.outcomes import Away, Failed, Outcome, Refused, Sent
from actors.consumers.retry import Permanent
from backends.ports.stores import Delivery


class SmtpSender:
    """One connection for the e-mails of a batch, one after the other. Each has a deadline of its own, and what the
    relay does with one is no matter of the others: a connection that is not in order is replaced.

    Args:
        timeout: seconds for the whole exchange of an e-mail, connecting included.
        tls: used where the relay offers STARTTLS; None never uses it.
        sender: the From and envelope address.
    """

    batch = 8

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
        self._relay = _Relay(host, port, tls, client_name)
        self._sender = sender
        self._timeout = timeout

    async def send(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        line = _Line(self._relay)
        outcomes: list[Outcome] = []
        try:
            for delivery in deliveries:
                outcome = await self._send(delivery, line)
                outcomes.append(outcome)
                if outcome == self._too_slow:
                    # What was taken is stored before anybody waits for the relay again.
                    untried = Away("the relay did not answer for the e-mail before this one")
                    return outcomes + [untried] * (len(deliveries) - len(outcomes))
            return outcomes
        finally:
            await line.close()

    @property
    def _too_slow(self) -> Failed:
        relay = f"{self._relay.host}:{self._relay.port}"
        return Failed(Failure("TimeoutError", f"{relay} did not take the e-mail within {self._timeout} s"))

    async def _send(self, delivery: Delivery, line: "_Line") -> Outcome:
        try:
            message = compose(delivery, self._sender)
            with trio.move_on_after(self._timeout) as scope:
                await line.deliver(message)
        except Permanent as error:
            return Refused(failure_of(error))
        except Exception as error:
            # Whatever a relay or the network does, another attempt may find them better.
            return Failed(failure_of(error))
        return self._too_slow if scope.cancelled_caught else Sent()


class _Relay(NamedTuple):
    host: str
    port: int
    tls: ssl.SSLContext | None
    client_name: str

    async def connect(self) -> "_Session":
        """Greeted, over TLS where it is offered and wanted."""
        stream: trio.abc.Stream = await trio.open_tcp_stream(self.host, self.port)
        session = _Session(stream)
        try:
            await session.answer()
            await session.command("send_greeting", self.client_name)
            if self.tls is not None and "STARTTLS" in session.protocol.extensions:
                await session.command("start_tls")
                session.stream = trio.SSLStream(stream, self.tls, server_hostname=self.host)
                await session.command("send_greeting", self.client_name)
        except BaseException:
            await trio.aclose_forcefully(session.stream)
            raise
        return session


class _Line:
    """A connection to the relay: opened for the first e-mail, kept for the next ones while it is in order."""

    def __init__(self, relay: _Relay) -> None:
        self._relay = relay
        self._session: _Session | None = None

    async def deliver(self, message: Message) -> None:
        """Returns when the relay has taken it: it answers for it from here on."""
        session = await self._ready()
        try:
            if message.utf8 and "SMTPUTF8" not in session.protocol.extensions:
                raise SmtpRefused("the address is not ASCII, and the relay does not offer SMTPUTF8 (RFC 6531)")
            await session.mail(message)
        except (SmtpRefused, SmtpFailed):
            raise  # an answer, after which the relay hears on
        except BaseException:
            await self._drop()
            raise

    async def close(self) -> None:
        """QUIT is a courtesy, its failure no failure."""
        if self._session is not None:
            with trio.move_on_after(1.0):
                await self._session.quit()
            await self._drop()

    async def _ready(self) -> "_Session":
        if self._session is not None and not await self._in_order(self._session):
            await self._drop()
        if self._session is None:
            self._session = await self._relay.connect()
        return self._session

    async def _in_order(self, session: "_Session") -> bool:
        """Whether the relay still hears, with nothing left of the e-mail before."""
        with trio.move_on_after(2.0):
            try:
                await session.command("noop" if session.protocol.state is ClientState.ready else "reset")
            except Exception:
                return False
            return True
        return False

    async def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await trio.aclose_forcefully(session.stream)


class SmtpRefused(Permanent):
    """The relay answered with a 5yz code: it will refuse the same e-mail again (RFC 5321 §4.2.1)."""


class SmtpFailed(Exception):
    """The relay answered with a 4yz code."""


class SmtpGone(Exception):
    """The relay closed the connection."""


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
                raise SmtpGone("the relay closed the connection")
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
