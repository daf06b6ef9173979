"""What one client may send, and how much of it at once: each limit, and what happens just past it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2

from mlx_grpc import testing
from mlx_grpc.http import runner
from mlx_grpc.rpc import listener
from tests.helpers.auth import http_call
from tests.helpers.rpc import Request, connected, in_loop, refused, serving

STREAMS = listener.MAX_STREAMS_PER_CONNECTION
# HTTP/2 by hand, since grpc's client keeps to the server's limits by itself.
DATA, HEADERS, RESET, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
REFUSED_STREAM = 7
MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE = 3, 6
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WATCH = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/grpc.health.v1.Health/Watch",
    ":authority": "x",
    "te": "trailers",
    "content-type": "application/grpc",
}


class RawConnection:
    """A client that keeps to no limit."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=30)
        self._file = self._socket.makefile("rb")
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0))
        kind, _, payload = self.read()
        assert kind == SETTINGS
        self.settings = {
            number(payload[at : at + 2]): number(payload[at + 2 : at + 6]) for at in range(0, len(payload), 6)
        }
        self._socket.sendall(frame(SETTINGS, 1, 0))  # limits hold once they are acknowledged

    def watch(self, stream: int) -> None:
        """Start a Health.Watch, which does not end by itself."""
        head = b"".join(literal(name, value) for name, value in WATCH.items())
        self._socket.sendall(frame(HEADERS, 4, stream, head) + frame(DATA, 1, stream, bytes(5)))

    def read(self) -> tuple[int, int, bytes]:
        """A frame's kind, stream and payload."""
        head = self._file.read(9)
        return head[3], number(head[5:9]), self._file.read(number(head[:3]))

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name: str, value: str) -> bytes:
    """A header in HPACK's plainest form."""
    return bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


@contextmanager
def raw(target: str) -> Iterator[RawConnection]:
    connection = RawConnection(target)
    try:
        yield connection
    finally:
        connection.close()


def test_grpc_tells_its_limits() -> None:
    """As HTTP/2 settings, so that good clients keep to them."""
    with testing.run() as server, raw(server.target) as connection:
        assert connection.settings[MAX_CONCURRENT_STREAMS] == STREAMS
        assert connection.settings[MAX_HEADER_LIST_SIZE] == listener.MAX_HEADER_BYTES


def test_streams_past_the_limit_are_refused() -> None:
    """Those of the connection that opens too many; the others on it, and other connections, go on."""
    with testing.run() as server, raw(server.target) as connection:
        too_many = 8
        for index in range(STREAMS + too_many):
            connection.watch(2 * index + 1)
        answered: set[int] = set()
        reset: dict[int, int] = {}
        while len(answered) + len(reset) < STREAMS + too_many:
            kind, stream, payload = connection.read()
            assert kind != GOAWAY
            if kind == HEADERS:
                answered.add(stream)
            elif kind == RESET:
                reset[stream] = number(payload)
        assert (len(answered), list(reset.values())) == (STREAMS, [REFUSED_STREAM] * too_many)
        with raw(server.target) as other:
            other.watch(1)
            while (found := other.read())[0] != HEADERS:
                pass
            assert found[1] == 1


@in_loop
async def test_headers_past_the_limit_are_refused() -> None:
    """The call ends, the connection goes on."""
    async with serving() as (_, api):
        metadata = (("x-large", "x" * listener.MAX_HEADER_BYTES),)
        refusal = await refused(api.answer("ping", metadata=metadata))
        assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "")
        await api.answer(Request(prompt="ping", stop={"max_tokens": 1}))


@in_loop
async def test_messages_past_the_limit_are_refused() -> None:
    """Just below it they are not."""
    async with serving(max_request_bytes=10_000, context_length=20_000) as (_, api):
        assert (await refused(api.answer("x" * 10_001))).code == "RESOURCE_EXHAUSTED"
        await api.answer(Request(prompt="x" * 3_000, stop={"max_tokens": 1}))


@in_loop
async def test_a_small_message_cannot_unfold() -> None:
    """The limit holds for the message as it is when decompressed."""
    async with serving(max_request_bytes=10_000) as (_, api):
        refusal = await refused(api.answer("x" * 1_000_000, compression=grpc.Compression.Gzip))
        assert refusal.code in ("RESOURCE_EXHAUSTED", "INTERNAL")


@in_loop
async def test_connections_past_the_limit_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, those that never say a word count, and there is room again when others leave."""
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 3)
    async with serving() as (server, api):
        await api.health.Check(health_pb2.HealthCheckRequest())
        host, _, port = server.target.rpartition(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        served = [await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(_greeted(pair))), 30) for pair in silent]
        assert served == [True, True, False]
        for _, writer in silent:
            writer.close()
            await writer.wait_closed()
        async with connected(server.target) as late:
            await late.health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)


async def _greeted(pair: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bool:
    """Whether the server says its settings, as it does to whom it serves."""
    try:
        return bool(await pair[0].read(1))
    except ConnectionError:
        return False


@pytest.mark.parametrize("port", ["http", "admin"])
def test_http_headers_that_do_not_end_are_refused(port: str) -> None:
    """By the HTTP parser, which keeps no more of them than the limit."""
    with testing.run() as server:
        host, _, number = server.server.addresses[port].rpartition(":")
        with socket.create_connection((host, int(number)), timeout=30) as endless:
            endless.sendall(b"GET /healthz HTTP/1.1\r\nX-Large: " + b"x" * 2 * runner.MAX_HEADER_BYTES)
            assert endless.recv(100).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(("port", "path"), [("http_url", "/v1/chat/completions"), ("admin_url", "/admin/models/load")])
def test_http_bodies_past_the_limit_are_refused(port: str, path: str) -> None:
    """413, as soon as it is announced and before it is sent."""
    with testing.run(max_request_bytes=10_000) as server:
        limit = 10_000 if port == "http_url" else runner.MAX_BODY_BYTES
        headers = {"Content-Type": "application/json", "Content-Length": str(limit + 1)}
        assert http_call(getattr(server, port), path, method="POST", headers=headers).status == 413


def test_http_connections_past_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """503 while too many are being answered; those that only stay open would make room."""
    monkeypatch.setattr(runner, "MAX_CONNECTIONS", 3)
    with testing.run() as server, ExitStack() as open_ones:
        host, _, port = server.server.admin.address.rpartition(":")
        for _ in range(3):
            taken = open_ones.enter_context(socket.create_connection((host, int(port)), timeout=30))
            taken.sendall(b"GET /admin/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert taken.recv(1)
        assert http_call(server.admin_url, "/healthz").status == 503
