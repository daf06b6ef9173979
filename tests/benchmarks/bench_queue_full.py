"""200 calls at once against a queue of 32: how long a refusal takes, at the server and for the client.

    python -m tests.benchmarks.bench_queue_full [--model SOURCE] [--calls 200] [--rounds 5]

The server is a process of its own; the seconds from a handler's entry to its status are its own, from its JSON log.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import Sequence

import grpc

from tests.helpers.rpc import Api, Request, Stop, connected, read_all, read_refusal
from tests.helpers.serve import Serve, script, started


async def one(api: Api, number: int, tokens: int) -> tuple[str, float]:
    """How a call ended, and after how many seconds."""
    began = time.perf_counter()
    try:
        await read_all(api.stream(Request(prompt=f"call {number}", stop=Stop(max_tokens=tokens, ignore_eos=True))))
    except grpc.aio.AioRpcError as error:
        refusal = read_refusal(error)
        kind = refusal.reason if refusal.retry_seconds else f"{refusal.code} without a delay"
        return kind, time.perf_counter() - began
    return "tokens", time.perf_counter() - began


async def run_rounds(target: str, calls: int, rounds: int, tokens: int) -> list[tuple[str, float]]:
    """All calls of each round at once."""
    ends: list[tuple[str, float]] = []
    async with connected(target) as api:
        await one(api, 0, tokens)  # the channel connects, rates are measured
        for _ in range(rounds):
            ends += await asyncio.gather(*(one(api, number, tokens) for number in range(calls)))
    return ends


def refused_seconds(serve: Serve) -> list[float]:
    """From the handler's entry to its status, for each QUEUE_FULL in the server's log."""
    lines = [json.loads(line) for line in serve.errors if line.startswith("{")]
    return [line["seconds"] for line in lines if line.get("reason") == "QUEUE_FULL"]


def summary(name: str, seconds: Sequence[float]) -> str:
    ranked = sorted(seconds)
    at = [ranked[min(len(ranked) - 1, int(len(ranked) * share))] * 1000 for share in (0.5, 0.99)]
    return f"| {name} | {len(ranked)} | {at[0]:.1f} | {at[1]:.1f} | {ranked[-1] * 1000:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=script(step_seconds=0.02))
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=16)
    options = parser.parse_args()
    with started("--model", options.model, "--max-queue", "32", "--max-batch", "16", "--log-json") as serve:
        ends = asyncio.run(run_rounds(serve.target, options.calls, options.rounds, options.tokens))
        serve.signal(signal.SIGTERM)
        serve.ended()
        print("how the calls ended:", dict(Counter(kind for kind, _ in ends)))
        print("| QUEUE_FULL, ms | calls | median | p99 | worst |\n|---|---|---|---|---|")
        print(summary("handler's entry to status", refused_seconds(serve)))
        print(summary("seen by the client", [seconds for kind, seconds in ends if kind == "QUEUE_FULL"]))


if __name__ == "__main__":
    main()
