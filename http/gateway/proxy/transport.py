"""The bytes of one connection to an upstream: a socket without any layer on its fast path, or TLS."""

import select
import socket
import ssl
from typing import Protocol

import trio

PART = 64 * 1024
"""The most bytes that are read, and so held, at once."""


class Broken(Exception):
    """The connection to the upstream failed. No OSError: those are the client's (`ClientGone`)."""


class TooSlow(Exception):
    """The upstream took nothing, or did not answer, for as long as it may."""


class Transport(Protocol):
    """`sent`: whether some of the present request may have left. The owner resets it."""

    sent: bool

    async def send_all(self, data: bytes) -> None:
        """Raises Broken, and TooSlow when the peer takes nothing for the write timeout."""
        ...

    async def receive(self) -> bytes:
        """What has come; b"" at its end. Raises Broken."""
        ...

    def stale(self) -> bool:
        """Whether, between two requests, the peer has closed or said something that nobody asked for."""
        ...

    def close(self) -> None: ...


class Plain:
    """A TCP socket, asked directly and waited for only when it has nothing or takes nothing."""

    __slots__ = ("_sock", "_write", "sent")

    def __init__(self, sock: socket.socket, write_timeout: float) -> None:
        self._sock = sock
        self._write = write_timeout
        self.sent = False

    async def send_all(self, data: bytes) -> None:
        try:
            done = self._sock.send(data)
        except BlockingIOError:
            done = 0
        except OSError as error:
            raise Broken(str(error)) from error
        self.sent = self.sent or done > 0
        if done < len(data):
            await self._send_rest(data, done)

    async def _send_rest(self, data: bytes, done: int) -> None:
        with memoryview(data) as view:
            while done < len(data):
                with trio.move_on_after(self._write) as patience:
                    await trio.lowlevel.wait_writable(self._sock)
                if patience.cancelled_caught:
                    raise TooSlow
                try:
                    done += self._sock.send(view[done:])
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise Broken(str(error)) from error
                self.sent = True

    async def receive(self) -> bytes:
        # It waits first: right behind a request, and between the parts of most answers, there is nothing yet.
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                return self._sock.recv(PART)
            except BlockingIOError:
                continue
            except OSError as error:
                raise Broken(str(error)) from error

    def stale(self) -> bool:
        return _readable(self._sock.fileno())

    def close(self) -> None:
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()


class Tls:
    """TLS over TCP. Closed without a close_notify: HTTP's framing says what was whole."""

    __slots__ = ("_socket", "_stream", "_write", "sent")

    def __init__(self, stream: trio.SSLStream[trio.SocketStream], write_timeout: float) -> None:
        self._stream = stream
        self._socket = stream.transport_stream.socket
        self._write = write_timeout
        self.sent = False

    async def send_all(self, data: bytes) -> None:
        self.sent = True
        try:
            for begin in range(0, len(data), PART):
                with trio.fail_after(self._write):
                    await self._stream.send_all(data[begin : begin + PART])
        except trio.TooSlowError:
            raise TooSlow from None
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Broken(str(error.__cause__ or error)) from error

    async def receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(PART))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Broken(str(error.__cause__ or error)) from error

    def stale(self) -> bool:
        return _readable(self._socket.fileno())

    def close(self) -> None:
        self._socket.close()


def _readable(number: int) -> bool:
    """Whether there is something to read, or the peer has closed."""
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))


async def connect(host: str, port: int, tls: ssl.SSLContext | None, write_timeout: float) -> Transport:
    """Raises OSError, a certificate that is not to be trusted included. No deadline of its own."""
    stream = await trio.open_tcp_stream(host, port)
    if tls is None:
        plain = socket.socket(fileno=stream.socket.detach())
        plain.setblocking(False)
        return Plain(plain, write_timeout)
    secured = trio.SSLStream(stream, tls, server_hostname=host, https_compatible=True)
    try:
        await secured.do_handshake()
    except BaseException as error:
        stream.socket.close()
        if isinstance(error, trio.BrokenResourceError):
            raise ConnectionError(f"no TLS with it: {error.__cause__ or error}") from error
        raise
    return Tls(secured, write_timeout)
