"""What a streamed token costs the server, over gRPC and over the bridge's event stream, in one run and in turns.

    python tests/benchmarks/bench_bridge.py [--rounds 5] [--streams 16] [--tokens 400]

The server runs in a process of its own with the scripted model, whose engine is a further process: what is counted is
the server process's CPU time alone, from the kernel. The readers are in this process, and not counted. Both protocols
send one event for each token unless the reader or the server is behind; the table says how many deltas came.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mlx_grpc.client import AsyncClient
from mlx_grpc.request import Delta
from mlx_grpc.testing import Script
from tests.helpers.openai import COMPLETIONS, Bridge, bridge

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Place:
    """Where the child serves."""

    pid: int
    grpc: str
    http: str


async def serve(step_seconds: float) -> None:
    """The child: serve until standard input ends."""
    script = Script(step_seconds=step_seconds, context_length=100_000)
    async with bridge(script, engine="process") as running:
        facts = {"pid": os.getpid(), "grpc": running.server.target, "http": f"{running.host}:{running.port}"}
        print(json.dumps(facts), flush=True)
        await asyncio.to_thread(sys.stdin.read)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


async def read_grpc(client: AsyncClient, tokens: int) -> int:
    """One stream; returns how many deltas came."""
    deltas = 0
    async for event in client.stream(prompt="hello there", max_tokens=tokens, ignore_eos=True):
        deltas += isinstance(event, Delta)
    return deltas


async def read_http(place: Bridge, tokens: int) -> int:
    """One stream; returns how many deltas came."""
    body = {"prompt": "hello there", "max_tokens": tokens, "ignore_eos": True, "stream": True}
    async with place.opened("POST", COMPLETIONS, body) as connection:
        await connection.head()
        count = 0
        while data := await connection.reader.read(65536):
            count += data.count(b"data: {")
        return count - 1  # the chunk with the finish reason


async def measure(place: Place, streams: int, tokens: int, one: Callable[[], Awaitable[int]]) -> tuple[float, float]:
    """Microseconds of the server's CPU for a token, and deltas for a token."""
    before = cpu_seconds(place.pid)
    deltas = sum(await asyncio.gather(*(one() for _ in range(streams))))
    spent = cpu_seconds(place.pid) - before
    return 1e6 * spent / (streams * tokens), deltas / (streams * tokens)


async def compare(place: Place, rounds: int, streams: int, tokens: int) -> None:
    host, _, port = place.http.rpartition(":")
    far = Bridge(None, host, int(port))  # type: ignore[arg-type]  # there is no server in this process
    found: dict[str, list[float]] = {"grpc": [], "http": []}
    async with AsyncClient(place.grpc) as client:
        sides: dict[str, Callable[[], Awaitable[int]]] = {
            "grpc": lambda: read_grpc(client, tokens),
            "http": lambda: read_http(far, tokens),
        }
        for number in range(rounds + 1):
            order = list(sides) if number % 2 else list(sides)[::-1]
            for name in order:
                microseconds, share = await measure(place, streams, tokens, sides[name])
                if number:  # the first warms up
                    found[name].append(microseconds)
                    print(f"round {number} {name}: {microseconds:6.1f} us CPU a token, {share:.2f} deltas a token")
    medians = {name: statistics.median(values) for name, values in found.items()}
    print(
        f"median at {streams} streams: gRPC {medians['grpc']:.1f} us, bridge {medians['http']:.1f} us a token,", end=" "
    )
    print(f"ratio {medians['http'] / medians['grpc']:.2f}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--step-seconds", type=float, default=0.01)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        await serve(args.step_seconds)
        return
    pipe = asyncio.subprocess.PIPE
    arguments = (__file__, "--serve", "--step-seconds", str(args.step_seconds))
    child = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe)
    assert child.stdin
    assert child.stdout
    try:
        await compare(Place(**json.loads(await child.stdout.readline())), args.rounds, args.streams, args.tokens)
    finally:
        child.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), 10)


if __name__ == "__main__":
    asyncio.run(main())
