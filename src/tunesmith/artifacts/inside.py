"""Detect internal hosts: this machine, its network, the cluster, and the cloud's own services.

Decided by a name's addresses, however it or an address is written. Does not depend on rules.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_TRANSLATED = IPv6Network("64:ff9b::/96")
"""IPv4 addresses as translated by NAT64 (RFC 6052)."""
_UNICAST = IPv6Network("2000::/3")
"""IPv6 addresses assigned to the public internet (RFC 4291)."""
_NAMES = (".local", ".localhost", ".internal", ".svc", ".home.arpa")


def is_inside(host: str) -> bool:
    """Return whether a host's name or any of its addresses is not on the public internet.

    A name without an address here cannot be reached from here either; how a proxy resolves it is up to the
    proxy.
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
