"""A healthy engine is not killed for being slow, and one that hangs is found although it may be slow."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from mlx_grpc import testing
from mlx_grpc.v1 import generation_pb2
from tests.helpers.proofs.servers import proof, tell
from tests.helpers.rpc import Request, Stop, connected, read_all, read_until, until
from tests.helpers.slow_model import make_slow_model

pytestmark = pytest.mark.prove

GRACE_SECONDS = 5.0


def slow_server(
    folder: Path, seconds_per_token: float, stall_seconds: float
) -> AbstractAsyncContextManager[testing.LocalServer]:
    """Serves the slow model, with the pace and the watchdog that every model has."""
    path = make_slow_model(folder, seconds_per_token, 8192)
    return testing.serve(engine="process", model=(f"slow={path}",), trust_remote_code=True, stall_seconds=stall_seconds)


def prompt_of(tokens: int, max_tokens: int = 2) -> Request:
    ids = generation_pb2.TokenIds(ids=[5 + number % 200 for number in range(tokens)])
    return Request(token_ids=ids, stop=Stop(max_tokens=max_tokens, ignore_eos=True))


@proof
async def test_a_slow_prefill_is_not_taken_for_a_hang(full_size: bool, tmp_path: Path) -> None:
    """A prompt that takes many times as long as the watchdog waits, by chunks that take a tenth of it."""
    seconds_per_token, stall_seconds, tokens = (0.05, 30.0, 5000) if full_size else (0.02, 1.5, 300)
    async with slow_server(tmp_path, seconds_per_token, stall_seconds) as server, connected(server.target) as api:
        began_seconds = time.monotonic()
        events = await read_all(api.stream(prompt_of(tokens)))
        took_seconds = time.monotonic() - began_seconds
        assert [event.finished.finish_reason for event in events if event.HasField("finished")]
        assert took_seconds > 4 * stall_seconds
        assert server.server.stats.crashes.total() == server.server.stats.stalls.total() == 0
        chunks = [event.prefill.processed_tokens for event in events if event.HasField("prefill")]
        longest = max(end - start for start, end in zip([0, *chunks], chunks, strict=False)) * seconds_per_token
        tell(
            f"{tokens} tokens in {took_seconds:.0f} s, chunks of at most {longest:.1f} s; stall_seconds {stall_seconds}"
        )


@proof
async def test_a_hang_in_a_slow_prefill_is_found(full_size: bool, tmp_path: Path) -> None:
    """SIGSTOP between two chunks: another engine goes on within the watchdog's time and five seconds."""
    seconds_per_token, stall_seconds, tokens = (0.05, 30.0, 600) if full_size else (0.02, 1.5, 100)
    async with slow_server(tmp_path, seconds_per_token, stall_seconds) as server, connected(server.target) as api:
        call = api.stream(prompt_of(tokens))
        await read_until(call, "prefill")
        assert server.engine_pid
        os.kill(server.engine_pid, signal.SIGSTOP)
        stopped_seconds = time.monotonic()
        stats = server.server.stats
        async with asyncio.timeout(stall_seconds + GRACE_SECONDS):
            await until(api, lambda: stats.stalls.total() > 0)
        found_seconds = time.monotonic() - stopped_seconds
        assert found_seconds < stall_seconds + GRACE_SECONDS
        events = await read_all(call)
        assert [event for event in events if event.HasField("completed")]
        assert stats.crashes.total() == 1
        tell(f"SIGSTOP in a slow prefill: found after {found_seconds:.1f} s; stall_seconds {stall_seconds}")
