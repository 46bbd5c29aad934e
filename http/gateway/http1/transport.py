"""Bytes from and to one client: a plain socket, or TLS. A write has a deadline; a read has its caller's.

The plain one uses the socket itself, without trio's stream: a call that need not wait then costs no trip through
the scheduler. Waiting is trio's, so cancellation and deadlines are too.
"""

import socket
import struct
from typing import Protocol

import trio

from gateway.request import ClientGone

_CHUNK = 64 * 1024
_CLOSE_TIMEOUT_S = 1.0


class Transport(Protocol):
    async def receive(self) -> bytes:
        """Wait for more; b"" at the end. A checkpoint. Raises ClientGone."""
        ...

    def has_ended(self) -> bool:
        """Whether the client is known to send nothing more, and nothing of what it sent is left to be received."""
        ...

    async def send(self, data: bytes) -> None:
        """Send all of it, each 64 KiB within the write timeout. Raises ClientGone; then the connection is useless."""
        ...

    async def say_end(self) -> None:
        """Tell the client that nothing more comes, if there is time for it; what it sends can still be received."""
        ...

    def abort(self) -> None:
        """Close now."""
        ...

    def reset(self) -> None:
        """Close now, so that the client sees an error and not an end."""
        ...


class PlainTransport:
    def __init__(self, stream: trio.SocketStream, write_timeout: float) -> None:
        self._socket = stream.socket
        # trio's socket has it and does not show it; all that is used of it here are calls that never wait.
        self._raw: socket.socket = stream.socket._sock  # type: ignore[attr-defined]
        self._write_timeout = write_timeout

    async def receive(self) -> bytes:
        while True:
            try:
                await trio.lowlevel.wait_readable(self._raw)
                return self._raw.recv(_CHUNK)
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError) as error:
                raise ClientGone from error

    def has_ended(self) -> bool:
        return _has_ended(self._raw)

    async def send(self, data: bytes) -> None:
        try:
            sent = self._raw.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise ClientGone from error
        if sent < len(data):
            await self._send_rest(memoryview(data)[sent:])

    async def _send_rest(self, rest: memoryview) -> None:
        try:
            for start in range(0, len(rest), _CHUNK):
                with trio.fail_after(self._write_timeout):
                    await self._send_part(rest[start : start + _CHUNK])
        except trio.TooSlowError:
            raise ClientGone("the client took too little of what was sent to it") from None
        except (OSError, trio.ClosedResourceError) as error:
            raise ClientGone from error

    async def _send_part(self, part: memoryview) -> None:
        while part:
            try:
                part = part[self._raw.send(part) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._raw)

    async def say_end(self) -> None:
        try:
            self._raw.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # they are gone, or it is closed already

    def abort(self) -> None:
        self._socket.close()

    def reset(self) -> None:
        _reset(self._socket)


class TlsTransport:
    def __init__(self, stream: trio.SSLStream[trio.SocketStream], write_timeout: float) -> None:
        self._tls = stream
        self._ended = False
        self._write_timeout = write_timeout

    async def receive(self) -> bytes:
        try:
            if self._ended:
                return bytes(await self._tls.transport_stream.receive_some(_CHUNK))
            return bytes(await self._tls.receive_some(_CHUNK))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ClientGone from error

    def has_ended(self) -> bool:
        return _has_ended(self._tls.transport_stream.socket._sock)  # type: ignore[attr-defined]

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), _CHUNK):
            with trio.move_on_after(self._write_timeout) as timeout:
                try:
                    await self._tls.send_all(view[start : start + _CHUNK])
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    raise ClientGone from error
            if timeout.cancelled_caught:
                raise ClientGone("the client took nothing of what was sent to it")

    async def say_end(self) -> None:
        # `unwrap` says goodbye and then waits for the client's own, or for whatever else it still sends. The socket
        # stays open for that: closed with input unread, the kernel would reset it under an answer on its way.
        self._ended = True
        try:
            with trio.move_on_after(_CLOSE_TIMEOUT_S, shield=True):
                await self._tls.unwrap()
        except (trio.BrokenResourceError, trio.BusyResourceError, trio.ClosedResourceError):
            pass
        try:
            self._tls.transport_stream.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # they are gone, or it is closed already

    def abort(self) -> None:
        self._tls.transport_stream.socket.close()

    def reset(self) -> None:
        _reset(self._tls.transport_stream.socket)


def _has_ended(sock: socket.socket) -> bool:
    try:
        return not sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _reset(sock: trio.socket.SocketType) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass  # it is closed already
    sock.close()
