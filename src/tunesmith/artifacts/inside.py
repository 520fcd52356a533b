"""Which hosts are of the inside: this machine, its network, the cluster, and the cloud's own services.

Decided by the addresses that a name has, however it or an address is written. Knows no rules.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_TRANSLATED = IPv6Network("64:ff9b::/96")
"""Addresses of IPv4 as a translating network (NAT64, RFC 6052) writes them."""
_UNICAST = IPv6Network("2000::/3")
"""The addresses of IPv6 that are given out for the public internet (RFC 4291)."""
_NAMES = (".local", ".localhost", ".internal", ".svc", ".home.arpa")


def is_inside(host: str) -> bool:
    """Whether a host's name or any of its addresses is not of the public internet.

    A name that has no address here cannot be connected to from here either; what a proxy makes of it is the
    proxy's affair.
    """
    name = host.rstrip(".").lower()
    if ("." not in name and ":" not in name) or name.endswith(_NAMES):
        return True
    return not all(_is_public(address) for address in _addresses(host))


def _addresses(host: str) -> list[IPv4Address | IPv6Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found]


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        if address in _TRANSLATED:
            return _is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        meant = address.ipv4_mapped or address.sixtofour
        if meant is not None:
            return _is_public(meant)
        return address in _UNICAST and address.is_global
    return address.is_global and not address.is_multicast and not address.is_reserved
