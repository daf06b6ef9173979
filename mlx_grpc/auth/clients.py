"""Who a client is, for turns and limits: its token's name, and without tokens the address that it calls from. Pure.

Addresses of IPv6 count by their first 64 bits, which is the least that anybody is given and can choose among freely.
All of a machine's own addresses are one client, and so are all that come by a Unix socket. Behind a proxy that is not
told apart by tokens everybody is the proxy.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import unquote

from mlx_grpc.auth.tokens import KnownToken

LOOPBACK = "loopback"
UNKNOWN = "unknown"
IPV6_PREFIX_BITS = 64


def client_name(token: KnownToken | None, address: str) -> str:
    """`token:NAME`, or what `of_host` or `of_peer` made of the address."""
    return f"token:{token.name}" if token is not None else address


def of_host(host: str) -> str:
    """From an IP address as text, without a port."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return UNKNOWN
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if address.is_loopback:
        return LOOPBACK
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, IPV6_PREFIX_BITS), strict=False))


def of_peer(peer: str) -> str:
    """From gRPC's word for the other side: `ipv4:1.2.3.4:567`, `ipv6:%5B::1%5D:567`, `unix:`."""
    kind, _, rest = unquote(peer).partition(":")
    match kind:
        case "ipv4":
            return of_host(rest.rpartition(":")[0])
        case "ipv6":
            return of_host(rest.rpartition(":")[0].strip("[]"))
        case "unix" | "unix-abstract":
            return "unix"
    return UNKNOWN
