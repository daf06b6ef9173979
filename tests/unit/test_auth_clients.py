"""Who a client is: by its token's name, or by the address that it calls from."""

from __future__ import annotations

import pytest

from mlx_grpc.auth.clients import client_name, of_host, of_peer
from mlx_grpc.auth.tokens import KnownToken, TokenScope

TOKEN = KnownToken("ann", frozenset({TokenScope.GENERATE}), b"")


def test_a_token_counts_before_the_address() -> None:
    """Wherever its bearer calls from; and no token can be named as an address is."""
    assert client_name(TOKEN, "192.0.2.1") == "token:ann"
    assert client_name(None, "192.0.2.1") == "192.0.2.1"


@pytest.mark.parametrize(
    ("peer", "name"),
    [
        ("ipv4:192.0.2.1:4567", "192.0.2.1"),
        ("ipv4:127.0.0.1:4567", "loopback"),
        ("ipv4:127.9.9.9:4567", "loopback"),
        ("ipv6:%5B::1%5D:4567", "loopback"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:4567", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2:ffff::7%5D:80", "2001:db8:1:2::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:4567", "fe80::/64"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:4567", "192.0.2.1"),
        ("ipv6:%5B::ffff:127.0.0.1%5D:4567", "loopback"),
        ("unix:", "unix"),
        ("unix:/run/mlx.sock", "unix"),
        ("unix-abstract:name", "unix"),
        ("", "unknown"),
        ("ipv4:", "unknown"),
        ("vsock:2:3", "unknown"),
        ("ipv6:%5Bnonsense%5D:1", "unknown"),
    ],
)
def test_a_peer_of_grpc_is_its_address_without_the_port(peer: str, name: str) -> None:
    """Another connection of the same client is the same client."""
    assert of_peer(peer) == name


@pytest.mark.parametrize(
    ("host", "name"),
    [("192.0.2.1", "192.0.2.1"), ("::1", "loopback"), ("fe80::1%eth0", "fe80::/64"), ("testclient", "unknown")],
)
def test_an_address_of_http_is_the_same_as_over_grpc(host: str, name: str) -> None:
    """Limits hold for both ports together."""
    assert of_host(host) == name
