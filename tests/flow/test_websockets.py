"""WebSocket as RFC 6455 has it, on a real server with an `asgi:` target that echoes: the categories of Autobahn's
test suite frame by frame, and that suite itself where it is installed."""

import json
import os
import shutil
import socket
import struct
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.flow.server import GENEROUS, Server, running

pytestmark = pytest.mark.process

ROUTE = '[[routes]]\nprefix = "/echo"\ntarget = "asgi:tests.gateway.example_apps:repeats"\nauth = "none"\n'
WSTEST = os.environ.get("WEIR_WSTEST") or shutil.which("wstest")

CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MASK = b"\x37\xfa\x21\x3d"
UTF8 = "κόσμε \U0001f600".encode()

Frame = tuple[int, bytes]


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, masked: bool = True) -> bytes:
    size = len(payload)
    length, extended = size, b""
    if size > 0xFFFF:
        length, extended = 127, struct.pack("!Q", size)
    elif size > 125:
        length, extended = 126, struct.pack("!H", size)
    head = bytes([fin << 7 | reserved << 4 | opcode, masked << 7 | length]) + extended
    if not masked:
        return head + payload
    mask = (MASK * (size // 4 + 1))[:size]
    return head + MASK + (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


class Client:
    """A client that writes and reads frames."""

    def __init__(self, port: int, *fields: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.file = self.socket.makefile("rb")
        head = (
            "GET /echo HTTP/1.1", "Host: weir", "Upgrade: websocket", "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", *fields,
        )  # fmt: skip
        self.socket.sendall("\r\n".join((*head, "", "")).encode())
        self.status = self.file.readline()
        self.headers: dict[str, str] = {}
        while (line := self.file.readline().strip()) != b"":
            name, _, value = line.decode().partition(": ")
            self.headers[name.lower()] = value

    def frame(self) -> Frame | None:
        """The next frame; None at the end of the connection. It is never masked."""
        head = self.file.read(2)
        if not head:
            return None
        size = head[1]
        if size == 126:
            (size,) = struct.unpack("!H", self.file.read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.file.read(8))
        assert size < 1 << 32
        return head[0], self.file.read(size)

    def heard(self) -> list[Frame]:
        """All frames up to the end of the connection."""
        return list(iter(self.frame, None))


@contextmanager
def connected(server: Server, *fields: str) -> Iterator[Client]:
    client = Client(server.port, *fields)
    try:
        yield client
    finally:
        client.file.close()
        client.socket.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("weir"), GENEROUS + ROUTE) as server:
        yield server
        assert server.metric("weir_connection_faults_total") == 0
        assert server.stop() == 0


def message(opcode: int, payload: bytes) -> Frame:
    return 0x80 | opcode, payload


def closed(code: int | None, reason: bytes = b"") -> Frame:
    return message(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


ECHOED: dict[str, tuple[bytes, list[Frame]]] = {
    # Framing: each of the three lengths, text and binary.
    **{
        f"{kind} of {size}": (frame(opcode, b"*" * size), [message(opcode, b"*" * size)])
        for kind, opcode in (("text", TEXT), ("binary", BINARY))
        for size in (0, 1, 125, 126, 127, 128, 65535, 65536, 1 << 20)
    },
    # Pings and pongs.
    "ping": (frame(PING), [message(PONG, b"")]),
    "ping with a payload": (frame(PING, b"\x00\xff" * 62), [message(PONG, b"\x00\xff" * 62)]),
    "ten pings": (b"".join(frame(PING, b"%d" % n) for n in range(10)), [message(PONG, b"%d" % n) for n in range(10)]),
    "a pong nobody asked for, then a ping": (frame(PONG, b"x") + frame(PING, b"y"), [message(PONG, b"y")]),
    # Fragmentation.
    "two fragments": (frame(TEXT, b"a", fin=False) + frame(CONTINUED, b"b"), [message(TEXT, b"ab")]),
    "empty fragments": (
        frame(BINARY, fin=False) + frame(CONTINUED, fin=False) + frame(CONTINUED), [message(BINARY, b"")]
    ),
    "a ping between fragments": (
        frame(TEXT, b"a", fin=False) + frame(PING, b"p") + frame(CONTINUED, b"b"),
        [message(PONG, b"p"), message(TEXT, b"ab")],
    ),
    "1,024 fragments of 1 KiB": (
        frame(BINARY, b"*" * 1024, fin=False)
        + frame(CONTINUED, b"*" * 1024, fin=False) * 1022
        + frame(CONTINUED, b"*" * 1024),
        [message(BINARY, b"*" * (1 << 20))],
    ),
    # UTF-8.
    "text beyond ASCII": (frame(TEXT, UTF8), [message(TEXT, UTF8)]),
    "a character cut by a fragment": (
        frame(TEXT, UTF8[:1], fin=False) + frame(CONTINUED, UTF8[1:]), [message(TEXT, UTF8)]
    ),
    "NUL and the last code point": (
        frame(TEXT, "\0\U0010ffff".encode()), [message(TEXT, "\0\U0010ffff".encode())]
    ),
    "binary is not text": (frame(BINARY, b"\xff\xfe"), [message(BINARY, b"\xff\xfe")]),
}  # fmt: skip


@pytest.mark.parametrize("case", ECHOED)
@pytest.mark.parametrize("chop", [0, 1000, 7], ids=["whole", "chopped", "finely chopped"])
def test_a_message_comes_back(server, case, chop):
    sent, expected = ECHOED[case]
    if chop == 7 and len(sent) > 2000:
        chop = 60_000
    with connected(server) as client:
        assert client.status.startswith(b"HTTP/1.1 101 ")
        assert client.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        sent += close()
        for begin in range(0, len(sent), chop or len(sent)):
            client.socket.sendall(sent[begin : begin + (chop or len(sent))])
        # The app's own answers may come behind those that the protocol gives, and after the goodbye not at all.
        if any(head & 0xF in (TEXT, BINARY) for head, _ in expected):
            assert [head for head in client.heard() if head[0] & 0xF >= CLOSE][-1] == closed(1000)
        else:
            assert client.heard() == [*expected, closed(1000)]
    with connected(server) as client:
        client.socket.sendall(ECHOED[case][0])
        assert sorted(client.frame() for _ in expected) == sorted(expected)


BROKEN: dict[str, tuple[bytes, int]] = {
    # Reserved bits and opcodes.
    **{f"reserved bits {bits}": (frame(TEXT, b"a", reserved=bits), 1002) for bits in range(1, 8)},
    "a reserved bit of a ping": (frame(PING, reserved=1), 1002),
    **{f"opcode {opcode:#x}": (frame(opcode, b"a"), 1002) for opcode in (3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF)},
    # Framing.
    "an unmasked frame": (frame(TEXT, b"a", masked=False), 1002),
    "a length written longer than need be": (b"\x81\xfe\x00\x01" + MASK + b"a", 1002),
    "a length with its highest bit set": (b"\x82\xff" + b"\xff" * 8 + MASK, 1002),
    "a ping of 126": (frame(PING, b"*" * 126), 1002),
    "a ping in fragments": (frame(PING, fin=False) + frame(CONTINUED), 1002),
    "a close in fragments": (frame(CLOSE, fin=False) + frame(CONTINUED), 1002),
    # Fragmentation.
    "a continuation of nothing": (frame(CONTINUED, b"a"), 1002),
    "a continuation of nothing that goes on": (frame(CONTINUED, b"a", fin=False), 1002),
    "a message within a message": (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002),
    "a continuation of a message that ended": (
        frame(PING, b"p") + frame(TEXT, b"a", fin=False) + frame(CONTINUED, b"b") + frame(CONTINUED, b"c"), 1002
    ),
    # UTF-8: at the first byte that is wrong, not at the end of the message.
    "a byte that no character has": (frame(TEXT, b"\xff"), 1007),
    "an overlong character": (frame(TEXT, b"\xc0\xaf"), 1007),
    "half a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "beyond the last code point": (frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "a character that does not end": (frame(TEXT, UTF8[:1]), 1007),
    "a wrong byte in a message that goes on": (frame(TEXT, b"a\xff", fin=False), 1007),
    "a wrong byte in a later fragment": (frame(TEXT, b"a", fin=False) + frame(CONTINUED, b"\xff", fin=False), 1007),
    # Close.
    "half a code": (frame(CLOSE, b"\x03"), 1002),
    **{f"code {code}": (close(code), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 5000, 65535)},
    "a reason that is no text": (close(1000, b"\xff"), 1007),
    "a reason of 124": (close(1000, b"*" * 124), 1002),
    # Limits.
    "a message of more than 16 MiB": (
        frame(BINARY, b"*" * (1 << 20), fin=False) + frame(CONTINUED, b"*" * (1 << 20), fin=False) * 16, 1009
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_breach_is_told_and_ends_the_connection(server, case):
    sent, code = BROKEN[case]
    with connected(server) as client:
        client.socket.sendall(sent + frame(TEXT, b"nobody's") * 3)
        heard = [item for item in client.heard() if item[0] & 0xF == CLOSE]
        assert [(head, payload[:2]) for head, payload in heard] == [closed(code)]


@pytest.mark.parametrize("code", [None, 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
def test_a_goodbye_is_answered_in_kind(server, code):
    with connected(server) as client:
        client.socket.sendall(close(code) + frame(PING, b"late"))
        assert [(head, payload[:2]) for head, payload in client.heard()] == [closed(code)]


def test_a_goodbye_may_have_a_reason(server):
    with connected(server) as client:
        client.socket.sendall(close(1000, "schön".encode() * 20))
        assert [item[1][:2] for item in client.heard()] == [struct.pack("!H", 1000)]


def test_what_comes_of_a_message_that_was_too_large_is_kept_nowhere(server):
    """The server's memory says so: 200 MiB more of it would be seen."""
    status = Path(f"/proc/{server.process.pid}/status")

    def resident() -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmRSS"))

    before = resident()
    with connected(server) as client:
        part = frame(CONTINUED, b"*" * (1 << 20), fin=False)
        client.socket.sendall(frame(BINARY, fin=False))
        try:
            for _ in range(200):
                client.socket.sendall(part)
        except OSError:
            pass  # closed: so much the better
        assert resident() - before < 100 * 1024


def test_messages_are_compressed_where_the_client_offers_it(server):
    with connected(server, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits") as client:
        assert client.headers["sec-websocket-extensions"].startswith("permessage-deflate")
        deflate, inflate = zlib.compressobj(wbits=-15), zlib.decompressobj(wbits=-15)
        for text in (b"Hello", b"Hello", UTF8 * 5000):
            packed = deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH)
            client.socket.sendall(frame(TEXT, packed[:-4], reserved=4))
            head, payload = client.frame()
            assert (head, inflate.decompress(payload + b"\0\0\xff\xff")) == (0xC1, text)


@pytest.mark.long
@pytest.mark.skipif(
    WSTEST is None,
    reason="no wstest: python2.7 -m pip install autobahntestsuite==0.8.2 (then on PATH, or WEIR_WSTEST=path)",
)
def test_no_case_of_autobahn_fails(server, tmp_path):
    spec = {
        "outdir": str(tmp_path / "reports"),
        "servers": [{"agent": "weir", "url": f"ws://127.0.0.1:{server.port}/echo"}],
        # Of compression a sample: each case of it sends a thousand messages, and all of it takes long.
        "cases": ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.1.1", "13.1.1"],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    subprocess.run(
        [str(WSTEST), "-m", "fuzzingclient", "-s", "spec.json"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=900,
    )
    cases = json.loads((tmp_path / "reports" / "index.json").read_text())["weir"]
    assert len(cases) > 300, cases
    # A message whose connection fails in the same packet is not echoed first: Autobahn calls that not strict.
    bad = {
        case: (told["behavior"], told["behaviorClose"])
        for case, told in cases.items()
        if told["behavior"] not in ("OK", "NON-STRICT", "INFORMATIONAL")
        or told["behaviorClose"] not in ("OK", "INFORMATIONAL")
    }
    assert bad == {}
