"""Which network an address is in: whoever has one address often has its neighbours, too."""

from __future__ import annotations

import ipaddress


def network_of(address: str, *, v4_bits: int, v6_bits: int) -> str:
    """The network of so many bits around ``address``; what is no address stays as it is. IPv4 that came over IPv6 is IPv4.

    >>> network_of("192.0.2.7", v4_bits=24, v6_bits=48), network_of("2001:db8:1:2::3", v4_bits=24, v6_bits=48)
    ('192.0.2.0/24', '2001:db8:1::/48')
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if isinstance(found, ipaddress.IPv4Address):
        return str(ipaddress.IPv4Network((found, v4_bits), strict=False))
    return str(ipaddress.IPv6Network((found, v6_bits), strict=False))
