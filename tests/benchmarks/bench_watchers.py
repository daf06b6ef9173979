"""What 500 open live pages and 64 idle WebSockets cost running streams, in one run and in turns.

    python tests/benchmarks/bench_watchers.py [--rounds 8] [--streams 16] [--seconds 4]

Two paces: the scripted model at a step each 10 ms (1,600 tokens/s at 16 streams: a GPU's pace), and at full speed,
where the server process has no time to spare and whatever watchers take is taken from streams. The server runs in a
process of its own with the engine in a further one; the watchers are in a third, so that reading their pages is no work
of the process that reads the streams.

Printed first: what the watchers take of the server's time while nothing streams, which bounds what they can take
from streams at full speed. Then, for each pace: tokens/s with and without, in pairs of neighbouring rounds in changing
order, the median of the pairs' ratios with its quartiles; and the server process's CPU a token with and without, from
the kernel, which other work on the machine changes less. It still changes: a busy machine doubles every number here.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mlx_grpc.client import AsyncClient
from mlx_grpc.request import Completed
from mlx_grpc.testing import Script, serve

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
PACES = {"realistic": 0.01, "full": 0.0}
"""Seconds a step."""
COME_AND_GO_SECONDS = 60.0
HISTORY_BYTES = 1 << 20
IDLE_SECONDS = 10.0


@dataclass(frozen=True)
class Place:
    """Where the child serves."""

    pid: int
    grpc: str
    http: str
    admin: str


@dataclass(frozen=True)
class Round:
    """One measurement."""

    tokens_per_second: float
    cpu_microseconds: float
    """Of the server process, a token."""

    def __str__(self) -> str:
        return f"{self.tokens_per_second:7.0f} tokens/s {self.cpu_microseconds:5.1f} us a token"


async def serve_until_told(step_seconds: float) -> None:
    """The server's process: until standard input ends."""
    async with serve(Script(step_seconds=step_seconds, context_length=1_000_000), engine="process") as running:
        server = running.server
        facts = {"pid": os.getpid(), "grpc": running.target, "http": server.http.address, "admin": server.admin.address}
        print(json.dumps(facts), flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def watch_until_told(admin: str, http: str, watchers: int, sockets: int) -> None:
    """The watchers' process: for every `open` on standard input, opens all and says so; for every `close`, closes."""
    loop = asyncio.get_running_loop()
    while order := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        if order == "open":
            opened = await asyncio.gather(
                *(_open(admin, "/admin/events", "") for _ in range(watchers)),
                *(_open(http, "/v1/ws", _UPGRADE) for _ in range(sockets)),
            )
            reading = [asyncio.create_task(_read(reader)) for reader, _ in opened]
        else:
            for task in reading:
                task.cancel()
            read = sum(number for number in await asyncio.gather(*reading) if number)
            for _, writer in opened:
                writer.close()
            await asyncio.gather(*(writer.wait_closed() for _, writer in opened), return_exceptions=True)
            order = f"{order} {read}"
        print(order, flush=True)


_KEY = base64.b64encode(b"watcher in bench").decode()
_UPGRADE = f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {_KEY}\r\n"


async def _open(address: str, path: str, headers: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=HISTORY_BYTES)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.split()[1] in (b"200", b"101"), head
    if not headers:  # the page's past comes first, and is no part of what watching costs
        await reader.readuntil(b"\n\n")
    return reader, writer


async def _read(reader: asyncio.StreamReader) -> int:
    """Until cancelled; returns how many bytes came."""
    read = 0
    with contextlib.suppress(asyncio.CancelledError):
        while data := await reader.read(65536):
            read += len(data)
    return read


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


async def measure(place: Place, client: AsyncClient, streams: int, tokens: int) -> Round:
    """All streams at once, to their end."""

    async def one() -> int:
        count = 0
        async for event in client.stream(prompt="hello there", max_tokens=tokens, ignore_eos=True):
            if isinstance(event, Completed):
                count = event.usage.completion_tokens
        return count

    spent, began = cpu_seconds(place.pid), time.perf_counter()
    total = sum(await asyncio.gather(*(one() for _ in range(streams))))
    seconds = time.perf_counter() - began
    return Round(total / seconds, 1e6 * (cpu_seconds(place.pid) - spent) / total)


class Watchers:
    """The watchers' process, told when to come and when to go."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def say(self, order: str) -> str:
        """Returns when it is done."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{order}\n".encode())
        async with asyncio.timeout(COME_AND_GO_SECONDS):
            return (await self._process.stdout.readline()).decode().strip()


@asynccontextmanager
async def child(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """This file in another process, until the end of the block."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, *arguments, stdin=pipe, stdout=pipe)
    assert process.stdin
    try:
        yield process
    finally:
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 10)


@asynccontextmanager
async def running(step_seconds: float, args: argparse.Namespace) -> AsyncIterator[tuple[Place, Watchers]]:
    """A server in its process, and watchers in theirs."""
    async with child("--serve", str(step_seconds)) as server:
        assert server.stdout
        place = Place(**json.loads(await server.stdout.readline()))
        crowd = ("--watch", place.admin, place.http, "--watchers", str(args.watchers), "--sockets", str(args.sockets))
        async with child(*crowd) as process:
            yield place, Watchers(process)


async def compare(pace: str, args: argparse.Namespace) -> None:
    """One pace: pairs of rounds, with and without, in changing order."""
    found: dict[bool, list[Round]] = {True: [], False: []}
    async with running(PACES[pace], args) as (place, watchers), AsyncClient(place.grpc) as client:
        tokens = 50
        for seconds in (1.0, args.seconds):
            trial = await measure(place, client, args.streams, tokens)
            tokens = max(50, int(trial.tokens_per_second * seconds / args.streams))
        for number in range(args.rounds):
            for watched in (True, False) if number % 2 else (False, True):
                if watched:
                    await watchers.say("open")
                found[watched].append(await measure(place, client, args.streams, tokens))
                if watched:
                    said = await watchers.say("close")
            without, with_them = found[False][-1], found[True][-1]
            print(f"{pace} {number + 1}: without {without}, with {with_them} ({said.split()[1]} bytes)", flush=True)
    speeds = [one.tokens_per_second / other.tokens_per_second for one, other in zip(*_sides(found), strict=True)]
    costs = [one.cpu_microseconds / other.cpu_microseconds for one, other in zip(*_sides(found), strict=True)]
    print(f"{pace}: {args.watchers} watchers and {args.sockets} sockets, {args.streams} streams: ", end="")
    print(f"tokens/s x {_spread(speeds)}, CPU a token x {_spread(costs)}", flush=True)


def _sides(found: dict[bool, list[Round]]) -> tuple[list[Round], list[Round]]:
    return found[True], found[False]


def _spread(ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} (quartiles {low:.3f} to {high:.3f})"


async def alone(args: argparse.Namespace) -> None:
    """The watchers without any stream: what they take of the server process's time, and so of full speed at most."""
    async with running(0.01, args) as (place, watchers):
        taken: list[float] = []
        for order in ("", "open"):
            if order:
                await watchers.say(order)
            before = cpu_seconds(place.pid)
            await asyncio.sleep(IDLE_SECONDS)
            taken.append((cpu_seconds(place.pid) - before) / IDLE_SECONDS)
        await watchers.say("close")
    print(
        f"idle: the server process takes {taken[0]:.2%} of a core, and {taken[1]:.2%} with {args.watchers} watchers and"
        f" {args.sockets} sockets: {taken[1] - taken[0]:.2%} for them",
        flush=True,
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round, about")
    parser.add_argument("--watchers", type=int, default=500)
    parser.add_argument("--sockets", type=int, default=64)
    parser.add_argument("--paces", nargs="*", choices=list(PACES), default=list(PACES))
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--watch", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve is not None:
        await serve_until_told(args.serve)
    elif args.watch:
        admin, http = args.watch
        await watch_until_told(admin, http, args.watchers, args.sockets)
    else:
        await alone(args)
        for pace in args.paces:
            await compare(pace, args)


if __name__ == "__main__":
    asyncio.run(main())
