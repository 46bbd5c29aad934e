"""The listener's own TLS: what is spoken over it, what is refused, and certificates that change."""

import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio
import trustme

from gateway.address import TrustedProxies
from gateway.asgi import GatewayApp
from gateway.asgi_types import Receive, Scope, Send
from gateway.server import TlsRef
from gateway.tls import TlsError, server_context
from tests.flow.server import ROOT
from tests.gateway.serving import GET, Serving, hello, read_answer, respond, serving, until
from tests.gateway.support import World

EXTRA = [(b"strict-transport-security", b"max-age=31536000")]
HSTS = b"strict-transport-security: max-age=31536000\r\n"
CA = trustme.CA()


def pem(folder: Path, ca: trustme.CA = CA, name: str = "cert") -> tuple[Path, Path]:
    issued = ca.issue_cert("127.0.0.1", "localhost")
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return cert, key


@pytest.fixture
def ref(tmp_path: Path) -> TlsRef:
    return TlsRef(server_context(*pem(tmp_path)))


def trusting(ca: trustme.CA = CA, *alpn: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


async def connect(here: Serving, context: ssl.SSLContext) -> trio.SSLStream[trio.SocketStream]:
    stream = trio.SSLStream(await here.connect(), context, server_hostname="127.0.0.1", https_compatible=True)
    try:
        with trio.fail_after(5):
            await stream.do_handshake()
    except trio.BrokenResourceError:
        await stream.transport_stream.aclose()
        raise
    return stream


@pytest.mark.parametrize(("http2", "version"), [(False, "HTTP/1.1"), (True, "HTTP/2")])
async def test_alpn_chooses_the_protocol(ref: TlsRef, http2: bool, version: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive()).get("more_body", False):
            body += message["body"]
        await respond(send, scope["scheme"].encode() + b" " + body + message["body"])

    async with (
        serving(app, tls=ref, extra=EXTRA) as here,
        httpx.AsyncClient(http2=http2, verify=trusting()) as client,
    ):
        for _ in range(3):
            answer = await client.post(f"https://127.0.0.1:{here.port}/", content=b"x" * 100_000)
            assert answer.status_code == 200
            assert answer.http_version == version
            assert answer.text == "https " + "x" * 100_000
            assert answer.headers.get_list("strict-transport-security") == ["max-age=31536000"]
        assert here.faults() == 0


async def test_without_alpn_it_is_http_1_1(ref: TlsRef) -> None:
    async with serving(hello, tls=ref, extra=EXTRA) as here:
        stream = await connect(here, trusting())
        await stream.send_all(GET)
        answer = await read_answer(stream)  # type: ignore[arg-type]
        assert answer.startswith(b"HTTP/1.1 200")
        assert HSTS in answer
        await stream.aclose()


async def test_an_answer_to_what_is_no_request_says_strict_transport_too(ref: TlsRef) -> None:
    async with serving(hello, tls=ref, extra=EXTRA) as here:
        stream = await connect(here, trusting())
        await stream.send_all(b"junk\r\n\r\n")
        answer = await read_answer(stream)  # type: ignore[arg-type]
        assert answer.startswith(b"HTTP/1.1 400")
        assert HSTS in answer
        await stream.aclose()


async def test_the_answer_to_an_upload_that_is_too_large_arrives(ref: TlsRef) -> None:
    """What is still on its way when the connection is closed must not reset it before the answer is read."""

    async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"too much", 413)

    for _ in range(5):
        async with serving(refuses, tls=ref) as here:
            stream = await connect(here, trusting())
            await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n")
            for _ in range(10):
                await stream.send_all(b"x" * 100_000)
                await trio.sleep(0.005)
            assert (await read_answer(stream)).endswith(b"too much")  # type: ignore[arg-type]
            await stream.aclose()
            assert here.faults() == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1])
async def test_old_tls_is_refused(ref: TlsRef, version: ssl.TLSVersion) -> None:
    old = trusting()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="is deprecated"):
        old.minimum_version = version
    with pytest.warns(DeprecationWarning, match="is deprecated"):
        old.maximum_version = version
    async with serving(hello, tls=ref) as here:
        with pytest.raises(trio.BrokenResourceError):
            await connect(here, old)
        assert here.faults() == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_new_tls_is_spoken_with_forward_secrecy(ref: TlsRef, version: ssl.TLSVersion) -> None:
    context = trusting()
    context.minimum_version = context.maximum_version = version
    async with serving(hello, tls=ref) as here:
        stream = await connect(here, context)
        name = stream.cipher()[0]
        assert name.startswith(("ECDHE-", "TLS_AES", "TLS_CHACHA20"))
        await stream.aclose()


async def test_a_certificate_that_is_replaced_greets_new_connections_and_keeps_the_old(
    ref: TlsRef, tmp_path: Path
) -> None:
    other = trustme.CA()
    async with serving(hello, tls=ref) as here:
        old = await connect(here, trusting())
        ref.current = server_context(*pem(tmp_path, other, "other"))
        new = await connect(here, trusting(other))
        for stream in (old, new, old):
            await stream.send_all(GET)
            assert (await read_answer(stream)).endswith(b"hello")  # type: ignore[arg-type]
        with pytest.raises(trio.BrokenResourceError):
            await connect(here, trusting())
        await old.aclose()
        await new.aclose()


GREETINGS = {"nothing": b"", "half a greeting": b"\x16\x03\x01\x02\x00\x01", "HTTP": GET, "junk": b"\xff" * 100}


@pytest.mark.parametrize("sent", GREETINGS.values(), ids=GREETINGS.keys())
async def test_who_does_not_shake_hands_is_closed(ref: TlsRef, sent: bytes) -> None:
    async with serving(hello, tls=ref, handshake_timeout=0.2) as here, await here.connect() as stream:
        if sent:
            await stream.send_all(sent)
        with trio.fail_after(3):
            try:
                while await stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
        assert here.faults() == 0


async def test_those_who_have_not_shaken_hands_count_as_connections(ref: TlsRef) -> None:
    async with serving(hello, tls=ref, max_connections=2) as here, await here.connect(), await here.connect():
        await trio.sleep(0.05)
        with pytest.raises(trio.BrokenResourceError):
            await connect(here, trusting())


async def test_a_drain_waits_for_no_handshake(ref: TlsRef) -> None:
    async with serving(hello, tls=ref) as here, await here.connect():
        await trio.sleep(0.05)
        with trio.fail_after(2):
            assert await here.server.drain(5.0)


async def test_a_client_that_does_not_read_is_cut_over_tls(ref: TlsRef) -> None:
    async def big(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, bytes(30_000_000))

    async with serving(big, tls=ref, write_timeout=0.2) as here:
        stream = await connect(here, trusting())
        await stream.send_all(GET)
        await until(lambda: here.server.connections == 1)
        await until(lambda: here.server.connections == 0)
        assert here.faults() == 0
        await stream.transport_stream.aclose()


@pytest.mark.parametrize("http2", [False, True])
async def test_an_answer_that_is_cut_is_an_error_over_tls(ref: TlsRef, http2: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("a bug")

    async with (
        serving(app, tls=ref) as here,
        httpx.AsyncClient(http2=http2, verify=trusting()) as client,
    ):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await client.get(f"https://127.0.0.1:{here.port}/")


async def test_a_body_over_http_2_that_trickles_is_a_timeout(ref: TlsRef) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x"
            await trio.sleep(0.02)

    world = World()
    app = GatewayApp(world.pipeline, TrustedProxies(), body_timeout=0.3, body_rate=1000.0)
    async with serving(app, tls=ref) as here, httpx.AsyncClient(http2=True, verify=trusting()) as client:
        answer = await client.post(f"https://127.0.0.1:{here.port}/open", content=trickle())
        assert answer.http_version == "HTTP/2"
        assert answer.status_code == 408
        assert world.target.seen == []


# Files.


def test_files_that_are_no_certificate_and_key_are_named_in_one_line(tmp_path: Path) -> None:
    cert, key = pem(tmp_path)
    other = pem(tmp_path, name="other")[1]
    junk = tmp_path / "junk.pem"
    junk.write_text("no PEM")
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "rsa", "-aes256", "-passout", "pass:x", "-in", key, "-out", locked]
        if b"RSA" in key.read_bytes()
        else ["openssl", "ec", "-aes256", "-passout", "pass:x", "-in", key, "-out", locked],
        check=True, capture_output=True,
    )  # fmt: skip
    cases = [
        (tmp_path / "absent", key, "server.tls_cert", "cannot be read"),
        (cert, tmp_path / "absent", "server.tls_key", "cannot be read"),
        (cert, tmp_path, "server.tls_key", "cannot be read"),
        (junk, key, "junk.pem", "no certificate"),
        (cert, junk, "junk.pem", "no certificate"),
        (cert, other, "other.key", "no certificate with its"),
        (cert, locked, "locked.key", "unencrypted"),
    ]
    for cert_file, key_file, names, why in cases:
        with pytest.raises(TlsError) as caught:
            server_context(cert_file, key_file)
        text = str(caught.value)
        assert names in text
        assert why in text
        assert "\n" not in text


@pytest.mark.process
def test_check_ends_with_2_for_a_certificate_that_cannot_be_used(tmp_path: Path) -> None:
    config = tmp_path / "weir.toml"
    config.write_text('server.tls_cert = "a.pem"\nserver.tls_key = "a.key"\n')
    for command in (["check"], []):
        ended = subprocess.run(
            [sys.executable, str(ROOT / "supervisor.py"), *command, "--config", str(config)],
            capture_output=True, text=True, cwd=ROOT, timeout=60,
        )  # fmt: skip
        assert ended.returncode == 2
        assert "server.tls_cert" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert len(ended.stderr.strip().splitlines()) == 1
