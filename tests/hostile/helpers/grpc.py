"""Clients that attack over gRPC, in a process of their own, and what an honest client notices meanwhile.

    python -m tests.hostile.helpers.grpc ATTACK HOST:PORT JSON-ARGUMENTS

tells on standard output how its calls ended, as JSON. It speaks HTTP/2 through h2, since grpc's own client keeps to
every limit by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import selectors
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import h2.exceptions
from grpc_health.v1 import health_pb2

from tests.helpers.proofs.servers import Served
from tests.helpers.rpc import Request, Stop, connected

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
GENERATE = "/mlx_grpc.v1.InferenceService/Generate"
MODEL = 'scripted=script:{"context_length": 1000000, "kv_bytes_per_token": 1, "step_seconds": 0.01}'
MOST_BYTES = 150_000_000
LONGEST_GAP_SECONDS, GAP_ON_A_LOADED_MACHINE_SECONDS = 0.3, 1.0
KEPT_BYTES_A_CALL, ALIVE_AT_ONCE = 12 * 1024, 1024
"""Of calls that were alive at once. The interpreter keeps the arenas in which their small objects were, since a few
others lie in each: 9 MB after a thousand calls, whatever they held. Another attack finds and uses them."""
LOG_BYTES_A_MINUTE = 100_000
READ_BYTES = 65536
CHECK_EVERY_SECONDS = 0.02
LOOK_EVERY_SECONDS = 0.05
ROOT = Path(__file__).parents[3]


class RawConnection:
    """One HTTP/2 connection that sends what it likes, as fast as it is let."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=30)
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(validate_outbound_headers=False, header_encoding="utf-8")
        )
        self._unsent: dict[int, tuple[memoryview, bool]] = {}
        self.ended: dict[int, str] = {}
        """By stream: grpc-status, or how else it ended."""
        self.answered: Counter[int] = Counter()
        """Messages that a stream was sent."""
        self._h2.initiate_connection()
        self._socket.sendall(self._h2.data_to_send())
        self._socket.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._out = b""

    def call(self, path: str, data: bytes = b"", *headers: tuple[str, str], end: bool = False) -> int:
        """Begin a call and send so much of it, as room comes; returns its stream."""
        stream = self._h2.get_next_available_stream_id()
        known = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")]
        known += [("te", "trailers"), ("content-type", "application/grpc")]
        self._h2.send_headers(stream, [*known, *headers], end_stream=end and not data)
        if data:
            self._unsent[stream] = (memoryview(data), end)
        return stream

    def go_on(self, stream: int, data: bytes, end: bool = True) -> None:
        """Send more of a call."""
        self._unsent[stream] = (memoryview(data), end)

    async def run_async(self, seconds: float, until_ended: bool = False) -> None:
        """As `run`, for a server in this very loop."""
        await asyncio.to_thread(self.run, seconds, until_ended)

    def run(self, seconds: float, until_ended: bool = False) -> None:
        """Send and receive for so long, or until all calls have ended."""
        end_seconds = time.monotonic() + seconds
        while (left := end_seconds - time.monotonic()) > 0:
            if until_ended and len(self.ended) == self._h2.highest_outbound_stream_id // 2 + 1:
                return
            self._push()
            want_write = selectors.EVENT_WRITE if self._out else 0
            self._selector.modify(self._socket, selectors.EVENT_READ | want_write)
            for _, ready in self._selector.select(min(left, 0.05)):
                if ready & selectors.EVENT_READ and not self._pull():
                    return

    def _push(self) -> None:
        for stream, (data, end) in list(self._unsent.items()):
            with contextlib.suppress(h2.exceptions.ProtocolError):  # the stream was closed
                while data and (room := min(self._h2.local_flow_control_window(stream), 16384, len(data))):
                    self._h2.send_data(stream, bytes(data[:room]), end_stream=end and room == len(data))
                    data = data[room:]
            if data and stream not in self.ended:
                self._unsent[stream] = (data, end)
            else:
                self._unsent.pop(stream)
        self._out += self._h2.data_to_send()
        with contextlib.suppress(BlockingIOError):
            while self._out:
                self._out = self._out[self._socket.send(self._out) :]

    def _pull(self) -> bool:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return True
        except ConnectionError:
            data = b""
        if not data:
            return False
        for event in self._h2.receive_data(data):
            match event:
                case h2.events.DataReceived():
                    self.answered[event.stream_id] += 1
                    self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.TrailersReceived() | h2.events.ResponseReceived():
                    headers: dict[Any, Any] = dict(event.headers)
                    if "grpc-status" in headers:
                        self.ended[event.stream_id] = headers["grpc-status"]
                case h2.events.StreamReset():
                    self.ended.setdefault(event.stream_id, f"reset {event.error_code}")
                case h2.events.ConnectionTerminated():
                    return False
        return True

    def close(self) -> None:
        self._selector.close()
        self._socket.close()


def framed(data: bytes, announced_bytes: int | None = None) -> bytes:
    """A message as gRPC sends it; or the beginning of a longer one."""
    return b"\0" + (len(data) if announced_bytes is None else announced_bytes).to_bytes(4, "big") + data


def inside(field: int, data: bytes) -> bytes:
    """A field with a length."""
    length, found = len(data), bytearray([field << 3 | 2])
    while length > 127:
        found.append(length & 127 | 128)
        length >>= 7
    return bytes([*found, length]) + data


TOKENIZER = "/mlx_grpc.v1.TokenizerService/"
HALF = 2 * 1024 * 1024 - 8
HOLDING_MUCH = {
    "messages": (GENERATE, inside(4, inside(1, b"") * HALF)),
    "parts": (GENERATE, inside(4, inside(1, inside(2, b"") * (HALF - 4)))),
    "strings": (GENERATE, inside(11, inside(3, b"") * HALF)),
    "map": (GENERATE, inside(10, inside(9, b"") * HALF)),
    "unknown": (GENERATE, b"\xf8\x3f\x00" * 1_398_000),
    "tokens": (GENERATE, inside(5, b"\x08\x01" * HALF)),
    "tokens-packed": (GENERATE, inside(5, inside(1, b"\x01" * 2 * HALF))),
    "detokenize": (TOKENIZER + "Detokenize", b"\x10\x01" * HALF),
    "detokenize-packed": (TOKENIZER + "Detokenize", inside(2, b"\x01" * 2 * HALF)),
    "render": (TOKENIZER + "RenderChat", inside(2, inside(1, b"") * HALF)),
    "count": (TOKENIZER + "CountTokens", inside(3, inside(1, inside(2, b"")) * (HALF // 2))),
}  # fmt: skip


def unfinished(
    target: str, *, calls: int, connections: int, message_bytes: int, seconds: float, path: str = CHECK
) -> dict[str, int]:
    """Messages without their last byte; a call that was ended is not tried again."""
    data = framed(b"\x0a" + bytes(message_bytes - 2), message_bytes)
    return _each(target, connections, seconds, lambda one: [one.call(path, data) for _ in range(calls // connections)])


def watches(target: str, *, calls: int, connections: int, name_bytes: int, seconds: float) -> dict[str, int]:
    """Watches of one long or short name each."""
    name = b"n" * name_bytes
    message = framed(health_pb2.HealthCheckRequest(service=name.decode()).SerializeToString())
    return _each(
        target, connections, seconds,
        lambda one: [one.call(WATCH, message, end=True) for _ in range(calls // connections)],
    )  # fmt: skip


def fields(target: str, *, calls: int, seconds: float, what: str) -> dict[str, int]:
    """Messages that hold a great many things, so many at a time, one after another for so long."""
    method, data = HOLDING_MUCH[what]

    async def send() -> dict[str, int]:
        found: Counter[str] = Counter()
        end_seconds = time.monotonic() + seconds

        async def again(call: Any) -> None:
            while time.monotonic() < end_seconds:
                try:
                    await call(data)
                    found["OK"] += 1
                except grpc.aio.AioRpcError as error:
                    found[error.code().name] += 1

        async with connected(target) as api:
            await asyncio.gather(*(again(api.channel.unary_unary(method)) for _ in range(calls)))
        return dict(found)

    return asyncio.run(send())


def _each(target: str, connections: int, seconds: float, begin: Any) -> dict[str, int]:
    """How the calls of all connections stand after so long: ended with which status, answered, or waiting."""
    made = [RawConnection(target) for _ in range(connections)]
    calls = [begin(one) for one in made]
    end_seconds = time.monotonic() + seconds
    while time.monotonic() < end_seconds:
        for one in made:
            one.run(0.05 if connections == 1 else 0.002)
    found: Counter[str] = Counter()
    for one, streams in zip(made, calls, strict=True):
        for stream in streams:
            found[one.ended.get(stream, "answered" if one.answered[stream] else "waiting")] += 1
        one.close()
    return dict(found)


@dataclass
class Pace:
    """What an honest client saw: the longest time that a health check took, and between two events of a stream."""

    check_seconds: float = 0.0
    stream_seconds: float = 0.0
    checks: int = 0
    events: int = 0


@asynccontextmanager
async def honest(target: str, metadata: tuple[tuple[str, str], ...] = ()) -> AsyncIterator[Pace]:
    """A client that checks health and reads a stream for as long as the context is open."""
    pace = Pace()
    async with connected(target) as checking, connected(target) as reading:
        await checking.health.Check(health_pb2.HealthCheckRequest())
        stream = reading.stream(
            Request(prompt="go on", stop=Stop(max_tokens=100_000, ignore_eos=True)), metadata=metadata
        )
        await stream.read()

        async def check() -> None:
            while True:
                began_seconds = time.monotonic()
                await checking.health.Check(health_pb2.HealthCheckRequest())
                pace.check_seconds = max(pace.check_seconds, time.monotonic() - began_seconds)
                pace.checks += 1
                await asyncio.sleep(CHECK_EVERY_SECONDS)

        async def read() -> None:
            while True:
                began_seconds = time.monotonic()
                await stream.read()
                pace.stream_seconds = max(pace.stream_seconds, time.monotonic() - began_seconds)
                pace.events += 1

        tasks = [asyncio.ensure_future(check()), asyncio.ensure_future(read())]
        try:
            yield pace
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled() and (error := task.exception()):
                    raise error
            stream.cancel()


@dataclass
class Footprint:
    """What a server's process has."""

    memory_bytes: int
    threads: int
    descriptors: int


def footprint(server: Served) -> Footprint:
    """Now, from /proc."""
    process = Path(f"/proc/{server.process.pid}")
    facts = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return Footprint(
        int(facts["VmRSS"].split()[0]) * 1024, int(facts["Threads"]), len(list((process / "fd").iterdir()))
    )


@dataclass
class Outcome:
    """How an attack went."""

    calls: dict[str, int]
    pace: Pace
    idle: Footprint
    peak_bytes: int
    after: Footprint
    log_bytes: int

    @property
    def grown_bytes(self) -> int:
        """The most memory above that of the idle server."""
        return self.peak_bytes - self.idle.memory_bytes

    def __str__(self) -> str:
        return (
            f"calls {self.calls}; +{self.grown_bytes / 1e6:.0f} MB at most, "
            f"{(self.after.memory_bytes - self.idle.memory_bytes) / 1e6:+.0f} MB afterwards "
            f"(idle {self.idle.memory_bytes / 1e6:.0f}); longest check {self.pace.check_seconds:.3f} s of "
            f"{self.pace.checks}, stream gap {self.pace.stream_seconds:.3f} s; log {self.log_bytes} bytes; "
            f"threads {self.idle.threads} > {self.after.threads}, descriptors {self.idle.descriptors} > "
            f"{self.after.descriptors}"
        )


async def attacked(server: Served, attack: str, **arguments: Any) -> Outcome:
    """Run an attack in a process of its own beside an honest client, and look at the server all the while."""
    async with honest(server.grpc) as warm:
        while warm.checks < 20:  # noqa: ASYNC110  (what the first calls allocate is not the attack's)
            await asyncio.sleep(CHECK_EVERY_SECONDS)
    async with honest(server.grpc) as pace:
        await asyncio.sleep(0.2)
        pace.check_seconds = pace.stream_seconds = 0.0
        idle, log_bytes = footprint(server), server.log.stat().st_size
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, attack, server.grpc, json.dumps(arguments),
            cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        peak_bytes = idle.memory_bytes
        told = asyncio.ensure_future(process.communicate())
        while not told.done():
            peak_bytes = max(peak_bytes, footprint(server).memory_bytes)
            await asyncio.wait({told}, timeout=LOOK_EVERY_SECONDS)
        assert process.returncode == 0
        calls: dict[str, int] = json.loads(told.result()[0])
        log_bytes = server.log.stat().st_size - log_bytes
        after = await _after(server, idle)
    return Outcome(calls, pace, idle, peak_bytes, after, log_bytes)


async def _after(server: Served, idle: Footprint) -> Footprint:
    """When connections are closed and memory is back, or has had its time to be."""
    for _ in range(200):
        after = footprint(server)
        if after.descriptors <= idle.descriptors and after.memory_bytes <= 1.1 * idle.memory_bytes:
            break
        await asyncio.sleep(LOOK_EVERY_SECONDS)
    return after


def check(found: Outcome, full_size: bool) -> None:
    """What holds for every attack. Small ones run beside other tests: only coarse times mean anything there, and there
    is none to wait for memory to come back."""
    longest_seconds = LONGEST_GAP_SECONDS if full_size else GAP_ON_A_LOADED_MACHINE_SECONDS
    assert found.pace.check_seconds <= longest_seconds
    assert found.pace.stream_seconds <= longest_seconds
    assert found.grown_bytes <= MOST_BYTES
    kept_bytes = max(0.1 * found.idle.memory_bytes, KEPT_BYTES_A_CALL * min(sum(found.calls.values()), ALIVE_AT_ONCE))
    assert found.after.memory_bytes <= found.idle.memory_bytes + kept_bytes or not full_size
    assert found.after.descriptors <= found.idle.descriptors
    assert found.log_bytes <= LOG_BYTES_A_MINUTE


def nothing(target: str, *, seconds: float) -> dict[str, int]:
    """No attack: what the machine itself takes."""
    time.sleep(seconds)
    return {}


ATTACKS: dict[str, Callable[..., dict[str, int]]] = {
    "nothing": nothing,
    "fields": fields,
    "unfinished": unfinished,
    "watches": watches,
}


if __name__ == "__main__":
    name, target, arguments = sys.argv[1:]
    sys.stdout.write(json.dumps(ATTACKS[name](target, **json.loads(arguments))))
