"""The server's own cost, with the scripted model in the engine's place; and the waiting queue's.

As a child of `compare` (`python -m tests.benchmarks.compare.scripted`) it is the server: a line on standard input asks
for the processor time and the event loop's lags since the last line.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from typing import Any

import grpc

from mlx_grpc import testing
from mlx_grpc.bench.stats import percentile
from mlx_grpc.request import Priority
from mlx_grpc.schedule.entry import Entry
from mlx_grpc.schedule.queue import WaitingQueue
from mlx_grpc.v1 import generation_pb2 as pb
from mlx_grpc.v1 import inference_service_pb2
from tests.benchmarks.compare.rounds import Line, alternate
from tests.benchmarks.compare.sides import OURS
from tests.benchmarks.compare.stages import Bench

METHOD = "/mlx_grpc.v1.InferenceService/StreamGenerate"
LAG_INTERVAL_SECONDS = 0.005
WAITING = 10_000


def scripted(bench: Bench) -> list[Line]:
    """Tokens a second through more and more streams, what one costs the server's process, and its loop's lag."""
    lines = []
    command = [sys.executable, "-m", "tests.benchmarks.compare.scripted"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        target = json.loads(server.stdout.readline())["target"]

        def facts() -> dict[str, float]:
            assert server.stdin is not None
            assert server.stdout is not None
            server.stdin.write("\n")
            server.stdin.flush()
            answer: dict[str, float] = json.loads(server.stdout.readline())
            return answer

        for count in bench.size.scripted_streams:
            rate = Line(f"scripted model, {count} streams", "tokens/s")
            rate.aim = "≥ 20,000" if count == 256 else ""
            cost = Line(f"the same, {count} streams", "µs of the server's process a token")
            cost.aim = "flat from 16 to 256"
            lag = Line(f"the same, {count} streams", "ms, event-loop lag p99", aim="< 50 ms")
            asyncio.run(_through(target, count, 8))
            facts()

            def measure(
                side: str, _: int, count: int = count, rate: Line = rate, cost: Line = cost, lag: Line = lag
            ) -> None:
                tokens, messages, seconds = asyncio.run(_through(target, count, bench.size.scripted_tokens))
                seen = facts()
                rate.add(side, tokens / seconds, count - tokens // bench.size.scripted_tokens)
                rate.note = f"{tokens / messages:.1f} tokens a message"
                cost.add(side, seen["cpu_seconds"] / tokens * 1e6)
                lag.add(side, seen["lag_p99_seconds"] * 1e3)

            alternate(bench.size.rounds, bench.clock, (OURS,), measure)
            lines += [rate, cost, lag]
        server.stdin.close()
    return lines


async def _through(target: str, streams: int, tokens: int) -> tuple[int, int, float]:
    """Tokens, messages, seconds. The client reads bytes and parses each stream's last message only:
    it is not what is measured."""
    got = messages = 0
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub: Any = channel.unary_stream(METHOD, request_serializer=pb.GenerateRequest.SerializeToString)

        async def one(number: int) -> None:
            nonlocal got, messages
            stop = pb.Stop(max_tokens=tokens, ignore_eos=True)
            raw = [message async for message in stub(pb.GenerateRequest(prompt=f"call {number}", stop=stop))]
            completed = inference_service_pb2.StreamGenerateResponse.FromString(raw[-1]).completed
            got += completed.usage.completion_tokens
            messages += len(raw)

        began = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(streams)))
        return got, messages, time.perf_counter() - began


def queue(bench: Bench) -> list[Line]:
    """Each operation of the queue while 10,000 wait, timed one by one; another order of them in each round."""
    rounds = [_operations(number) for number in range(bench.size.rounds)]
    lines = []
    for name in rounds[0]:
        line = Line(f"{WAITING:,} waiting: {name}", "µs, p99", aim="< 50 µs")
        for taken in rounds:
            line.add(OURS, percentile(taken[name], 99) * 1e6)
        line.note = f"median {percentile([one for taken in rounds for one in taken[name]], 50) * 1e6:.1f} µs"
        lines.append(line)
    return lines


def _operations(number: int) -> dict[str, list[float]]:
    """Seconds of each, by its name."""
    dice = random.Random(number)
    waiting = WaitingQueue(ageing_seconds=10.0)
    priorities = list(Priority)

    def entry(key: int) -> Entry:
        return Entry(key, dice.choice(priorities), 128, 256, arrived_seconds=0.0)

    for key in range(WAITING):
        waiting.push(entry(key), key * 0.001)
    times: dict[str, list[float]] = {"push": [], "tail_position": [], "head": [], "remove": []}

    def timed(name: str, *arguments: object) -> None:
        began = time.perf_counter()
        getattr(waiting, name)(*arguments)
        times[name].append(time.perf_counter() - began)

    keys = dice.sample(range(WAITING), min(WAITING, 5000))
    for step, key in enumerate(keys):  # one leaves, one comes: as many wait all the time
        now = 10.0 + step * 0.01
        timed("remove", key)
        timed("tail_position", Priority.NORMAL, now)
        timed("push", entry(WAITING + step), now)
        timed("head")
    return times


async def serve() -> None:
    """The server, until its standard input ends."""
    loop, lags = asyncio.get_running_loop(), list[float]()

    async def watch() -> None:
        while True:
            due = loop.time() + LAG_INTERVAL_SECONDS
            await asyncio.sleep(LAG_INTERVAL_SECONDS)
            lags.append(max(0.0, loop.time() - due))

    async with testing.serve(engine="process", max_batch=1024, max_queue=10_000) as server:
        watcher = asyncio.create_task(watch())
        print(json.dumps({"target": server.target}), flush=True)
        last = time.process_time()
        while await asyncio.to_thread(sys.stdin.readline):
            now = time.process_time()
            print(json.dumps({"cpu_seconds": now - last, "lag_p99_seconds": percentile(lags, 99)}), flush=True)
            last = now
            lags.clear()
        watcher.cancel()


if __name__ == "__main__":
    asyncio.run(serve())
