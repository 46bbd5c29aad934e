"""Upstreams over TLS: the certificate is checked against the URL's name, and connections are kept as plain ones."""

import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from gateway.problem import ProblemError
from gateway.proxy.origin import Origin
from gateway.proxy.target import UpstreamTarget
from tests.gateway.proxying import LIMITS, Behaviour, FakeWire, Peer, Upstream, asked, said, through, to

pytestmark = pytest.mark.process
BIG = 1 << 20


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of localhost that signs itself, with its key, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed (Debian: apt-get install openssl)")
    folder = tmp_path_factory.mktemp("tls")
    key, crt, pair = folder / "key.pem", folder / "crt.pem", folder / "pair.pem"
    asks = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    files = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(crt)]
    subprocess.run([openssl, *asks, *files], check=True, capture_output=True)
    pair.write_text(key.read_text() + crt.read_text())
    return pair


@asynccontextmanager
async def secure(certificate: Path, *behaviours: Behaviour | bytes) -> AsyncIterator[tuple[Upstream, int]]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    peer = Upstream(behaviours)

    async def serve(stream: trio.SocketStream) -> None:
        try:
            await peer.serve(trio.SSLStream(stream, context, server_side=True))
        except (trio.BrokenResourceError, ssl.SSLError):
            pass

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        with trio.fail_after(10):
            yield peer, listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def trusting(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(certificate)
    return context


async def test_requests_go_over_one_kept_connection_both_ways(certificate: Path) -> None:
    async def take(peer: Peer, head: bytes) -> None:
        assert await peer.body(BIG) == b"y" * BIG
        await peer.say(said(b"200 OK", body=b"x" * BIG))

    async with secure(certificate, said(b"200 OK", body=b"small"), take, said(b"200 OK")) as (peer, port):
        origin = Origin(f"https://localhost:{port}", LIMITS, lambda: trusting(certificate))
        target = UpstreamTarget([origin])
        assert (await target.handle(asked(), to())).body == b"small"
        wire = FakeWire([b"y" * 65536] * 16, length=BIG)
        assert (await target.handle(through(wire, "POST"), to())).sent
        assert b"".join(wire.written) == b"x" * BIG
        await target.handle(asked(), to())
        assert peer.connections == 1
        origin.close_idle()


@pytest.mark.parametrize("fault", ["unknown", "name"])
async def test_a_certificate_that_is_not_to_be_trusted_is_a_bad_gateway(certificate: Path, fault: str) -> None:
    async with secure(certificate) as (peer, port):
        host = "localhost" if fault == "unknown" else "127.0.0.1"
        tls = ssl.create_default_context if fault == "unknown" else lambda: trusting(certificate)
        origin = Origin(f"https://{host}:{port}", LIMITS, tls)
        with pytest.raises(ProblemError) as caught:
            await UpstreamTarget([origin]).handle(asked(method="POST"), to())
        assert caught.value.status == 502
        assert "certificate" in origin.last_error
        assert origin.describe()["connections"] == 0
        assert peer.heard == []


async def test_a_connection_closed_in_its_midst_is_a_bad_gateway(certificate: Path) -> None:
    async with secure(certificate, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhalf") as (
        _,
        port,
    ):
        target = UpstreamTarget([Origin(f"https://localhost:{port}", LIMITS, lambda: trusting(certificate))])
        with pytest.raises(ProblemError) as caught:
            await target.handle(asked(), to())
        assert caught.value.status == 502
