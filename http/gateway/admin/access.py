"""Who may use the admin listener: the holder of `data.dir/admin.token`, under a Host that is ours."""

import hmac
from ipaddress import ip_address
from pathlib import Path

from gateway.admin.secret_file import load_or_make

_WILDCARDS = ("0.0.0.0", "[::]")  # noqa: S104 - compared, not bound


class AdminToken:
    """The operator's token. The file is made at the first start, readable by its owner alone."""

    def __init__(self, value: str) -> None:
        self._value = value.encode()

    @classmethod
    def load(cls, path: Path) -> "AdminToken":
        """Read *path*, or make it. Raises OSError when it can be neither read nor made."""
        return cls(load_or_make(path))

    def matches(self, authorization: str | None) -> bool:
        """Whether an Authorization header carries this token; constant time in the token."""
        scheme, _, value = (authorization or "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(value.strip().encode(), self._value)


def host_matches(host: str | None, bind: str) -> bool:
    """Whether the Host header names the address the admin listener is bound to.

    A page elsewhere that resolves its own name to this address (DNS rebinding) sends that name, and is refused.
    """
    if not host:
        return False
    name, _, port = bind.rpartition(":")
    asked, _, asked_port = host.lower().rpartition(":")
    if asked_port != port:
        return False
    allowed = {name.lower()}
    if name in ("127.0.0.1", "[::1]", *_WILDCARDS):
        allowed |= {"localhost", "127.0.0.1", "[::1]"}
    # Bound to every address, any of them will do: rebinding needs a name.
    return asked in allowed or (name in _WILDCARDS and _is_address(asked))


def _is_address(host: str) -> bool:
    try:
        ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
