"""A TCP proxy of our own in front of a real engine: it delays, resets, swallows, and lets through again."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

_CHUNK = 65536
_LOOK_S = 0.05
# A close that discards what is unsent and tells the peer so: RST instead of FIN.
_RESET = struct.pack("ii", 1, 0)


class TcpProxy:
    """Listens on a free port of loopback and forwards to *target*, with two threads a connection.

    `delay`: seconds that each direction's bytes are late; may be set at any time. While `blackhole` is on,
    connections are taken and stay, and nothing comes through; what was under way is kept and comes later.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay = 0.0
        self._open = threading.Event()
        self._open.set()
        self._refusing = False
        self._closed = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def blackhole(self) -> None:
        self._open.clear()

    def reset(self, *, refuse: bool = False) -> None:
        """Reset every connection; with *refuse* new ones, too, until `heal`."""
        self._refusing = refuse
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            _cut(pair)

    def heal(self) -> None:
        self.delay, self._refusing = 0.0, False
        self._open.set()

    @property
    def connections(self) -> int:
        with self._lock:
            return len(self._pairs)

    def close(self) -> None:
        self._closed = True
        self.heal()
        # `close` alone leaves a thread that is in `accept` where it is.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                client.close()
                continue
            pair = (client, server)
            for end in pair:
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._refusing:
                _cut(pair)
                continue
            with self._lock:
                self._pairs.add(pair)
            for source, sink in (pair, pair[::-1]):
                threading.Thread(target=self._pump, args=(pair, source, sink), daemon=True).start()

    def _pump(self, pair: tuple[socket.socket, socket.socket], source: socket.socket, sink: socket.socket) -> None:
        try:
            while chunk := source.recv(_CHUNK):
                due = time.monotonic() + self.delay
                while (wait := due - time.monotonic()) > 0 and self.delay:
                    time.sleep(min(wait, _LOOK_S))
                self._open.wait()
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            with self._lock:
                self._pairs.discard(pair)
            _cut(pair)


def _cut(pair: tuple[socket.socket, socket.socket]) -> None:
    for end in pair:
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        # A thread that is in `recv` holds the socket open; this wakes it.
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@contextlib.contextmanager
def proxied(target: int) -> Iterator[TcpProxy]:
    proxy = TcpProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
