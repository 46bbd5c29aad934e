"""Which addresses a webhook may reach. Pure.

The guard against server-side request forgery: a registered URL must not make Weir talk to itself, to its
neighbours, or to a cloud's metadata service. It judges *addresses*, after resolution: names lie.
"""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """Whether *text*, an IPv4 or IPv6 address, is one that anybody on the internet may be sent to.

    Refuses private, loopback, link-local, shared (100.64/10), multicast, unspecified and reserved ones,
    also inside an IPv6 address that carries an IPv4 one (mapped, compatible, 6to4, NAT64). What is no
    address is not public.
    """
    try:
        address: Address = ipaddress.ip_address(text)
    except ValueError:
        return False
    address = _carried(address)
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return False  # site-local, local NAT64 and whatever is assigned some day
    return address.is_global and not address.is_multicast and not address.is_reserved


def _carried(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, else the address itself."""
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    low = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _NAT64 or (int(address) >> 32 == 0 and int(low) > 1):
        return low
    return address.ipv4_mapped or address.sixtofour or address
