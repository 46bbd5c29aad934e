"""Listening sockets. Opened above whoever serves them, so that a crash of the server refuses no connection:
while it restarts, the kernel keeps those who come in the backlog."""

import errno
import os
import socket
import stat
import sys
from collections.abc import Sequence

_UNIX = "unix:"
_NOTSENT_LOWAT = 0x201 if sys.platform == "darwin" else 25
_MOST_UNSENT = 128 * 1024
_REASONS = {
    errno.EADDRINUSE: "it is in use; stop the other server or choose another port",
    errno.EACCES: "not permitted; ports below 1024 need a privilege",
    errno.EADDRNOTAVAIL: "no interface of this machine has this address",
}


class BindError(Exception):
    """An address that cannot be listened on. The message names it, and the reason."""


def open_sockets(binds: Sequence[str], *, backlog: int = 1024) -> list[socket.socket]:
    """Listen on every one of *binds*: `host:port`, `[v6]:port` or `unix:/path` (mode 0600).

    A host name listens on all of its addresses; port 0 lets the system choose, one port for them all. A
    stale socket file is replaced; one that a server answers on is not. Raises BindError and keeps none.
    The caller closes them; to stop listening is to close them.
    """
    opened: list[socket.socket] = []
    try:
        for bind in binds:
            if bind.startswith(_UNIX):
                opened.append(_open_unix(bind.removeprefix(_UNIX), backlog))
            else:
                opened.extend(_open_tcp(bind, backlog))
    except BaseException:
        for sock in opened:
            sock.close()
        raise
    return opened


def address_of(sock: socket.socket) -> str:
    """The address in the form of `open_sockets`, with the port that the system chose."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"{_UNIX}{name}"
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


def _open_tcp(bind: str, backlog: int) -> list[socket.socket]:
    host, _, text = bind.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not text.isdigit() or int(text) > 65535:
        raise BindError(f"cannot listen on {bind}: write it as host:port")
    port = int(text)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise BindError(f"cannot listen on {bind}: {host} is no known host ({error})") from None
    opened: list[socket.socket] = []
    for family, address in dict.fromkeys((info[0], info[4]) for info in found):
        try:
            opened.append(_listen(family, (address[0], port, *address[2:]), backlog))
        except OSError as error:
            for sock in opened:
                sock.close()
            raise _bind_error(bind, error) from None
        port = port or opened[0].getsockname()[1]
    return opened


def _listen(family: int, address: object, backlog: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # no wait for TIME_WAIT after a restart
            _keep_little_unsent(sock)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # `[::]` must not clash with `0.0.0.0`
        sock.bind(address)  # type: ignore[arg-type]
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _keep_little_unsent(sock: socket.socket) -> None:
    """For the connections it accepts: else the kernel takes megabytes for a client that reads slowly, and takes no
    more before it has got rid of a third of them, which looks like a client that reads nothing."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", _NOTSENT_LOWAT)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, option, _MOST_UNSENT)
    except OSError:
        pass  # a system without it


def _open_unix(path: str, backlog: int) -> socket.socket:
    try:
        _remove_stale(path)
        # The mode must be right from the start: whoever connects before a chmod is in.
        before = os.umask(0o177)
        try:
            return _listen(socket.AF_UNIX, path, backlog)
        finally:
            os.umask(before)
    except OSError as error:
        raise _bind_error(_UNIX + path, error) from None


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return  # somebody's file: bind says that the address is in use
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except FileNotFoundError:
            return


def _bind_error(bind: str, error: OSError) -> BindError:
    return BindError(f"cannot listen on {bind}: {_REASONS.get(error.errno or 0, error.strerror or repr(error))}")
