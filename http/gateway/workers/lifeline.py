"""The pair of sockets between a parent and its worker; a line is a JSON message.

The parent's first line is a `Beginning`; the worker answers with `Ready` and, as its last words, `Last`. Whichever
end closes tells the other that its owner is gone: a worker without a parent ends at once, as if killed.
"""

import ctypes
import os
import signal
import socket
import sys
import threading

import msgspec

from gateway.admin.readings import Reading

_PR_SET_PDEATHSIG = 1


class Beginning(msgspec.Struct, frozen=True):
    """What the worker is to run: the settings file as the parent read it, and what is the parent's to say whatever
    the file says by then: the data directory that it holds, and the roles that it opened sockets for."""

    content: str
    data: str
    roles: tuple[str, ...]


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Every actor of the worker is up."""


class Last(msgspec.Struct, frozen=True, tag="last"):
    """All that the worker counted in its life."""

    readings: list[Reading]


FromWorker = Ready | Last
decoder: "msgspec.json.Decoder[FromWorker]" = msgspec.json.Decoder(FromWorker)


def line(message: msgspec.Struct) -> bytes:
    return msgspec.json.encode(message) + b"\n"


class Lifeline:
    """The worker's end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def begin(self) -> Beginning:
        """Wait for the parent's first line; from then on this process ends when its parent does."""
        received = b""
        while not received.endswith(b"\n"):
            if not (more := self._sock.recv(65536)):
                sys.exit(1)
            received += more
        _die_with_parent()
        # A thread of its own, so that a loop that hangs does not outlive its parent either.
        threading.Thread(target=self._end_with_parent, name="lifeline", daemon=True).start()
        return msgspec.json.decode(received, type=Beginning)

    def ready(self) -> None:
        self._say(Ready())

    def last(self, readings: list[Reading]) -> None:
        self._say(Last(readings))

    def _say(self, message: FromWorker) -> None:
        try:
            self._sock.sendall(line(message))
        except OSError:
            pass  # nobody listens any more; the thread ends us

    def _end_with_parent(self) -> None:
        try:
            while self._sock.recv(4096):
                pass
        except OSError:
            pass
        os._exit(1)


def _die_with_parent() -> None:
    """Where the kernel can see to it, it does: that reaches a stopped process too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
