"""Many calls at once against a small queue: each is answered or refused, and nothing of them stays."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mlx_grpc.observe.process import resident_bytes
from tests.helpers.proofs.servers import Served, outcome, proof, served, settled, tell
from tests.helpers.rpc import Api, Refusal, Request, Stop, connected

pytestmark = pytest.mark.prove

QUEUE = 64
ROUNDS = 3
GROWTH = 1.05
"""Memory afterwards against memory before: what the issue allows."""


@proof
async def test_a_thousand_calls_from_a_hundred_connections(full_size: bool, tmp_path: Path) -> None:
    """Three times: tokens or RESOURCE_EXHAUSTED for each; then nobody waits or runs, and memory is what it was."""
    connections, calls_each = (100, 10) if full_size else (30, 10)
    script = 'script:{"step_seconds": 0.005}'
    with served(tmp_path, "--max-queue", str(QUEUE), "--max-batch", "16", model=script) as server:
        # The first rounds fill pools that stay; what counts is that later ones add nothing.
        for _ in range(ROUNDS):
            await _round(server, connections, calls_each)
        before, refused = _memory_bytes(server), 0
        for number in range(ROUNDS):
            outcomes = await _round(server, connections, calls_each)
            assert set(outcomes) <= {"tokens", "QUEUE_FULL"}
            assert outcomes.total() == connections * calls_each
            assert outcomes["tokens"] >= QUEUE
            tell(f"round {number + 1}: {dict(outcomes)}")
            refused += outcomes["QUEUE_FULL"]
        assert refused > 0, "the calls came so slowly that the queue was never full"
        after = _memory_bytes(server)
        assert after < before * GROWTH
        tell(f"memory of server and engine: {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB after")


async def _round(server: Served, connections: int, calls_each: int) -> Counter[str]:
    """How the calls ended; each connection has a channel, and all call at once."""
    request = Request(prompt="hello", stop=Stop(max_tokens=48, ignore_eos=True))
    async with AsyncExitStack() as stack:
        apis: list[Api] = [await stack.enter_async_context(connected(server.grpc)) for _ in range(connections)]
        outcomes = await asyncio.gather(*(outcome(api.stream(request)) for api in apis for _ in range(calls_each)))
    status = await settled(server)
    assert (status["queue_depth"], status["active_rows"], status["crashes"]) == (0, 0, 0)
    return Counter(_name(one) for one in outcomes)


def _name(one: Refusal | str) -> str:
    if isinstance(one, str):
        assert one
        return "tokens"
    if (one.code, one.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL"):
        assert one.retry_seconds is not None
        assert one.retry_seconds > 0
    return one.reason or f"{one.code}: {one.message}"


def _memory_bytes(server: Served) -> int:
    return sum(resident_bytes(pid) or 0 for pid in (server.process.pid, server.engine_pid))
