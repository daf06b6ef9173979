"""Connections that never finish their handshake."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mlx_grpc import testing
from mlx_grpc.http import runner
from mlx_grpc.rpc import listener
from tests.helpers.auth import Authority, TlsFolder
from tests.hostile.helpers.http import closed_within

HELLO = b"\x16\x03\x01\x02\x00"
"""How a handshake begins: a record of 512 bytes."""


@pytest.mark.parametrize("port", ["grpc", "http", "admin"])
@pytest.mark.parametrize("said", [b"", HELLO], ids=["silent", "begun"])
def test_a_handshake_that_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: str, said: bytes
) -> None:
    """The connection ends on each port, whether nothing came or the beginning."""
    monkeypatch.setattr(runner, "HANDSHAKE_SECONDS", 0.5)
    monkeypatch.setattr(listener, "HANDSHAKE_SECONDS", 1)
    files = TlsFolder(tmp_path, Authority().issue())
    with testing.run(**files.settings) as server:
        host, _, number = server.server.addresses[port].rpartition(":")
        with socket.create_connection((host, int(number)), timeout=30) as connection:
            connection.sendall(said)
            closed_within(connection, 10.0)
