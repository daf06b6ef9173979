"""Connections that say nothing, or take nothing: they end sooner than those that work, and keep nobody out."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from mlx_grpc import testing
from mlx_grpc.http import runner
from mlx_grpc.testing import LocalServer
from tests.hostile.helpers.http import (
    CHAT,
    MOST_MIB,
    closed_within,
    connections,
    gap_bound_seconds,
    head,
    in_threads,
    send_all,
    victim,
    watched,
)

GET = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"
CONNECTIONS = 16


@contextmanager
def connected(server: LocalServer, port: str = "http") -> Iterator[socket.socket]:
    host, _, number = server.server.addresses[port].rpartition(":")
    with socket.create_connection((host, int(number)), timeout=30) as connection:
        yield connection


@pytest.mark.parametrize("port", ["http", "admin"])
@pytest.mark.parametrize("said", [b"", b"GET /v1/mod", b"GET / HTTP/1.1\r\nhost: localhost\r\n", GET + b"GE"])
def test_a_request_that_does_not_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, port: str, said: bytes
) -> None:
    """Nor one of which only the beginning comes, also after a whole one."""
    monkeypatch.setattr(runner, "HEADER_SECONDS", 0.3)
    monkeypatch.setattr(runner, "LOOK_EVERY_SECONDS", 0.1)
    with testing.run() as server, connected(server, port) as silent:
        silent.sendall(said)
        closed_within(silent, 10.0)


def test_a_byte_now_and_then_does_not_make_it_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is for all of the headers."""
    monkeypatch.setattr(runner, "HEADER_SECONDS", 0.5)
    monkeypatch.setattr(runner, "LOOK_EVERY_SECONDS", 0.1)
    with testing.run() as server, connected(server) as slow:
        slow.settimeout(0.05)
        began = time.monotonic()
        with pytest.raises(ConnectionError):  # noqa: PT012
            for byte in GET[:-2] * 100:
                slow.send(bytes([byte]))
                try:
                    if not slow.recv(1):
                        raise ConnectionResetError
                except TimeoutError:
                    assert time.monotonic() - began < 10


@pytest.mark.parametrize("said", [b"", GET, head(CHAT, length=1000) + b"{"], ids=["silent", "idle", "sending"])
def test_connections_that_do_not_work_make_room(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """More of them than there are places: whoever comes is served, at once."""
    monkeypatch.setattr(runner, "MAX_CONNECTIONS", CONNECTIONS)
    with testing.run() as server, ExitStack() as stack:
        for _ in range(3 * CONNECTIONS):
            one = stack.enter_context(connected(server))
            one.sendall(said)
            if said == GET:
                assert one.recv(100).startswith(b"HTTP/1.1 200")
        for _ in range(CONNECTIONS):
            with connected(server) as other:
                other.sendall(GET)
                assert other.recv(100).startswith(b"HTTP/1.1 200")


def test_silent_ones_end_before_those_that_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body on its way outlives a flood of connections that say nothing."""
    monkeypatch.setattr(runner, "MAX_CONNECTIONS", CONNECTIONS)
    body = json.dumps({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}).encode()
    with testing.run() as server, connected(server) as sending, ExitStack() as stack:
        sending.sendall(head(CHAT, length=len(body), expect="100-continue"))
        assert sending.recv(100).startswith(b"HTTP/1.1 100")  # it is waited for
        sending.sendall(body[:5])
        for _ in range(3 * CONNECTIONS):
            stack.enter_context(connected(server))
        with connected(server) as other:
            other.sendall(GET)
            assert other.recv(100).startswith(b"HTTP/1.1 200")
        sending.sendall(body[5:])
        assert sending.recv(100).startswith(b"HTTP/1.1 200")


def test_open_sockets_without_a_question_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the last of those that do not work."""
    monkeypatch.setattr(runner, "MAX_CONNECTIONS", CONNECTIONS)
    upgrade = head("/v1/ws", method="GET", connection="Upgrade", upgrade="websocket", sec_websocket_version="13",
                   sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip
    with testing.run() as server, ExitStack() as stack:
        for _ in range(2 * CONNECTIONS):
            one = stack.enter_context(connected(server))
            one.sendall(upgrade)
            assert one.recv(100).startswith(b"HTTP/1.1 101")
        with connected(server) as other:
            other.sendall(GET)
            assert other.recv(100).startswith(b"HTTP/1.1 200")


def test_a_client_that_takes_no_answers_is_cut_off(tmp_path: Path) -> None:
    """It asks for much, again and again, and reads nothing: neither its connection nor the answers stay."""
    asking = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n" * 2000
    with victim(tmp_path, slow_reader_seconds=0.5) as server:
        idle = server.look()
        with connections(server, 8) as held:
            in_threads(*[lambda one=one: send_all(one, asking) for one in held])
            end = time.monotonic() + 30
            while (now := server.look()).descriptors > idle.descriptors and time.monotonic() < end:
                time.sleep(0.2)
        assert now.descriptors <= idle.descriptors
        assert now.peak_mib - idle.memory_mib <= MOST_MIB


def test_thousands_of_requests_at_once_on_one_connection(full_size: bool, tmp_path: Path) -> None:
    """They are answered one after another, and others go between."""
    count = 20_000 if full_size else 2_000
    with victim(tmp_path) as server, watched(server) as witness:
        with server.connect() as connection:
            sender = [lambda: send_all(connection, GET * count)]
            reader = [lambda: _read_answers(connection, count)]
            in_threads(*sender, *reader)
        during = server.look()
        assert during.gap_seconds <= gap_bound_seconds(full_size)
    assert not witness.failed


def _read_answers(connection: socket.socket, count: int) -> None:
    tail, seen = b"", 0
    while seen < count:
        data = tail + connection.recv(2**20)
        seen += data.count(b"HTTP/1.1 200")
        tail = data[-11:]


@pytest.mark.parametrize(
    "lines", [b"a:\r\n" * 4000, b"a: b\n" * 3000, b"cookie: x=y\r\n" * 1200], ids=["empty", "bare", "cookies"]
)
def test_many_small_headers_are_refused(full_size: bool, tmp_path: Path, lines: bytes) -> None:
    """Each costs microseconds, and a hundred connections with thousands of them seconds."""
    request = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n" + lines + b"\r\n"
    with victim(tmp_path) as server, connections(server, 200 if full_size else 20) as held:
        for one in held:
            send_all(one, request)
        assert all(closed_within(one, 20)[1].startswith(b"HTTP/1.1 400") for one in held)
        assert server.look().gap_seconds <= gap_bound_seconds(full_size)


def test_a_usual_number_of_headers_is_taken() -> None:
    """Some dozens."""
    request = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n" + b"x-a: b\r\n" * 100 + b"\r\n"
    with testing.run() as server, connected(server) as one:
        one.sendall(request)
        assert one.recv(100).startswith(b"HTTP/1.1 200")
