"""A certificate for 127.0.0.1 that is made anew for each session and trusted by nobody."""

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificate:
    """PEM files: the chain, and its private key."""

    cert: Path
    key: Path


def certificate(folder: Path) -> Certificate:
    """Make one (ECDSA P-256) in *folder*."""
    made = trustme.CA().issue_cert("127.0.0.1", "localhost")
    found = Certificate(folder / "cert.pem", folder / "key.pem")
    found.cert.write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
    found.key.touch(0o600)
    found.key.write_bytes(made.private_key_pem.bytes())
    return found
