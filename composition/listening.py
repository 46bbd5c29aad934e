"""The listening sockets: held for the life of the process, above the tree."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.sockets import address_of, open_sockets
from settings import Settings


@dataclass(frozen=True, slots=True)
class Listening:
    """The listening sockets, opened above the tree: a crash of a listener refuses no connection."""

    admin: Sequence[socket.socket] = ()
    control: Sequence[socket.socket] = ()
    public: Sequence[socket.socket] = ()
    worker: bool = False
    """Whether the sockets are a parent's, who has the admin listener."""

    def gateway_urls(self, *, tls: bool) -> str:
        return _urls(self.public, "https" if tls else "http")

    def admin_urls(self) -> str:
        return _urls(self.admin, "http")

    def admin_bind(self, settings: Settings) -> str:
        """`admin.bind` with the port that the system chose for port 0."""
        host, _, port = str(settings.admin.bind).rpartition(":")
        chosen = self.admin[0].getsockname()[1] if self.admin else port
        return f"{host}:{chosen}"


def _urls(sockets: Sequence[socket.socket], scheme: str) -> str:
    return ", ".join(f"{scheme}://{address_of(sock)}" for sock in sockets)


@contextmanager
def listening(settings: Settings) -> Iterator[Listening]:
    """Raises BindError for an address that cannot be listened on."""
    control = control_socket(settings)
    with ExitStack() as stack:

        def opened(bind: str) -> list[socket.socket]:
            return [stack.enter_context(sock) for sock in open_sockets([bind])]

        public = opened(str(settings.server.bind)) if "gateway" in settings.server.roles else []
        admin = opened(str(settings.admin.bind))
        stack.callback(control.unlink, missing_ok=True)
        yield Listening(admin, opened(f"unix:{control}"), public)


def control_socket(settings: Settings) -> Path:
    return settings.data.dir / "control.sock"
