"""TLS on a listener of our own: 1.2 and 1.3, ephemeral keys and authenticated ciphers alone (RFC 9325)."""

import ssl
from pathlib import Path

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class TlsError(Exception):
    """A certificate or key that cannot be used: a configuration error. Names the file and the cure."""


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """What to greet clients with; HTTP/2 is offered. Raises TlsError."""
    for name, file in (("tls_cert", cert), ("tls_key", key)):
        try:
            file.open("rb").close()
        except OSError as error:
            raise TlsError(f"server.{name}: {file} cannot be read ({error.strerror}); name a PEM file") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        # The password keeps OpenSSL from asking on the terminal.
        context.load_cert_chain(cert, key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise TlsError(
            f"server.tls_cert, server.tls_key: {cert} and {key} are no certificate with its unencrypted key ({reason})"
        ) from None
    return context
