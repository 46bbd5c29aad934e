"""The numbers of the proxy: how long and how much. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyLimits:
    """Seconds, bytes, counts. The request's own deadline holds beside them until the answer begins."""

    connect: float = 2.0
    """To connect, TLS handshake included."""
    write: float = 10.0
    """Until the upstream takes another part of what is sent to it."""
    response: float = 8.0
    """From the whole request to the head of its answer (and the rest of a small one), in one try."""
    idle: float = 60.0
    """Between two parts of an answer that is streamed."""
    tunnel_idle: float = 300.0
    """Without a byte either way, in a WebSocket."""
    pending: float = 2.0
    """For a connection to become free, when there are as many as there may be."""
    max_connections: int = 256
    """To one upstream, in use and kept."""
    max_pending: int = 256
    """Requests that wait for a connection to one upstream."""
    max_idle: int = 64
    """Kept for the next requests to one upstream."""
    idle_connection: float = 4.0
    """How long one is kept: below the 5 s of the servers that wait shortest, so that they seldom close first."""
    whole: int = 64 * 1024
    """An answer known to be no longer is passed on whole, and a request's body sent whole and able to be sent again."""
    max_response: int = 16 * 1024 * 1024
    """Of an answer that must be passed on whole, as there is no wire to stream it through."""
