"""The senders over TLS: the certificate is checked against the webhook's *name*, though an address is called."""

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio

from actors.consumers.notification.outcomes import Failed, Sent
from actors.consumers.notification.smtp import opportunistic_tls
from tests.consumers.receivers import Endpoint, Mailbox, Relay, hook, mail_row, sender, smtp, webhook_row

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of hooks.example that signs itself, with its key, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed (Debian: apt-get install openssl)")
    file = tmp_path_factory.mktemp("tls") / "pair.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=hooks.example"),
            *(
                "-addext",
                "subjectAltName=DNS:hooks.example",
                "-keyout",
                str(file),
                "-out",
                str(file.with_suffix(".crt")),
            ),
        ],
        check=True,
        capture_output=True,
    )
    file.write_text(file.read_text() + file.with_suffix(".crt").read_text())
    return file


@pytest.fixture
def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
async def secure(nursery: trio.Nursery, server_side: ssl.SSLContext) -> Endpoint:
    made = Endpoint()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    made.port = listener.socket.getsockname()[1]

    async def serve(stream: trio.SocketStream) -> None:
        try:
            await made.serve(trio.SSLStream(stream, server_side, server_side=True, https_compatible=True))  # type: ignore[arg-type]
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(stream)  # it did not like our certificate

    nursery.start_soon(trio.serve_listeners, serve, [listener])
    return made


async def at_loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


@pytest.mark.parametrize(("host", "delivered"), [("hooks.example", True), ("other.example", False)])
async def test_the_certificate_must_be_the_names(
    secure: Endpoint, certificate: Path, host: str, delivered: bool
) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate.with_suffix(".crt")))
    target = hook(secure, host)
    target = msgspec.structs.replace(target, url=target.url.replace("http:", "https:"))
    async with sender(resolver=at_loopback, tls=trusting) as webhooks:
        outcome = await webhooks.send(target, webhook_row())
    if delivered:
        assert outcome == Sent()
        assert secure.requests[0][1]["host"] == f"hooks.example:{secure.port}"
    else:
        assert isinstance(outcome, Failed)
        assert "certificate" in outcome.failure.message.lower()
        assert secure.requests == []


@pytest.fixture
def tls_relay(server_side: ssl.SSLContext) -> Iterator[Relay]:
    made = Relay(Mailbox(), hostname="127.0.0.1", port=0)
    made.SMTP_kwargs |= {"tls_context": server_side, "require_starttls": True}
    made.start()
    yield made
    made.stop()


async def test_an_e_mail_goes_over_starttls_where_the_relay_offers_it(tls_relay: Relay) -> None:
    assert await smtp(tls_relay, tls=opportunistic_tls()).send([mail_row()]) == [Sent()]
    assert len(tls_relay.handler.taken) == 1
    assert await smtp(tls_relay, tls=opportunistic_tls()).send([mail_row()] * 3) == [Sent()] * 3
    assert len(set(tls_relay.handler.peers)) == 2, "a batch is one connection, and one handshake"
    (refused,) = await smtp(tls_relay).send([mail_row()])
    assert not isinstance(refused, Sent)
    assert "STARTTLS" in refused.failure.message
