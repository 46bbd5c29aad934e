"""Whose request it is: the address of the caller, seen through trusted proxies. Pure."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address

LOCAL = "local"
"""The address of a peer on a Unix socket, which has none."""


class TrustedProxies:
    """The networks whose `X-Forwarded-*` headers are believed. No networks: nobody's are."""

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        self._networks = tuple(networks)

    def trusts(self, address: str) -> bool:
        """Whether *address* belongs to a trusted proxy. Text that is no address is not trusted."""
        if not self._networks:
            return False
        parsed = _parse(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def client(self, peer: str, forwarded_for: Iterable[bytes]) -> str:
        """The caller's address, normalised.

        Args:
            peer: who connected to us.
            forwarded_for: the values of all `X-Forwarded-For` headers, in order.

        The chain is read from the right, where our own proxies wrote: the first address that is not a
        trusted proxy is the caller. What stands left of it is the caller's own claim. An entry that is no
        address ends the search at the hop that reported it; when all are trusted it is the leftmost.
        """
        found = normalised(peer)
        if not self.trusts(found):
            return found
        for entry in reversed(b",".join(forwarded_for).split(b",")):
            address = _parse(_without_port(entry.decode("latin-1").strip()))
            if address is None:
                break
            found = str(address)
            if not any(address in network for network in self._networks):
                break
        return found


def normalised(address: str) -> str:
    """One spelling per address: IPv4-mapped IPv6 as IPv4, IPv6 compressed, no zone. Other text stays as it is."""
    if ":" not in address:
        return address  # IPv4 comes from the kernel in its only spelling
    parsed = _parse(address)
    return address if parsed is None else str(parsed)


def limit_key(address: str) -> str:
    """What limits by address count: an IPv4 address, or the /64 of an IPv6 one (a household has 2^64 addresses)."""
    if ":" not in address:
        return address
    parsed = _parse(address)
    if not isinstance(parsed, IPv6Address):
        return address if parsed is None else str(parsed)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"


def _parse(text: str) -> _Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _without_port(entry: str) -> str:
    """`1.2.3.4:80` and `[::1]:80`, as some proxies write them, without port and brackets."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry
