"""Connections that are reset, stalled or half open leave no row and no file descriptor behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.proofs.proxy import Proxy, proxied
from tests.helpers.proofs.servers import Served, comes_true, crowd, outcome, proof, served, settled, tell
from tests.helpers.rpc import Refusal, connected, read_until

pytestmark = pytest.mark.prove

STREAMS = 8
ENDLESS = 'script:{"step_seconds": 0.01, "context_length": 100000, "kv_bytes_per_token": 1}'
KEEPALIVE = ("--keepalive-seconds", "1", "--keepalive-timeout-seconds", "1")


def _sockets(pid: int) -> int | None:
    """How many sockets a process has open; None where the system does not say."""
    folder = Path(f"/proc/{pid}/fd")
    if not folder.is_dir():
        return None
    found = 0
    for name in os.listdir(folder):
        try:
            found += os.readlink(folder / name).startswith("socket:")
        except OSError:  # closed meanwhile
            continue
    return found


@pytest.mark.parametrize("break_it", [Proxy.reset, Proxy.half_open, Proxy.stall], ids=["reset", "half open", "stalled"])
@proof
async def test_a_broken_wire_leaves_nothing_behind(
    break_it: Callable[[Proxy], None], full_size: bool, tmp_path: Path
) -> None:
    """Streams through the proxy go down with it; the stream beside it goes on; rows and sockets are as before."""
    with served(tmp_path, *KEEPALIVE, model=ENDLESS) as server:
        async with connected(server.grpc) as direct:
            beside = direct.stream(crowd(["beside"], 90_000)[0])
            await read_until(beside, "delta")
            before = await asyncio.to_thread(_held, server)
            for _ in range(10 if full_size else 2):
                await _break(server, break_it)
                await comes_true(lambda: _held(server) == before, 30)
                await read_until(beside, "delta")
            beside.cancel()
        await settled(server)
        tell(f"{break_it.__name__}: rows and sockets as before: {before}")


def _held(server: Served) -> tuple[int, int, int | None]:
    """Calls that run, rows, sockets. (Asking takes no socket that stays: HTTP closes it before the answer is read.)"""
    status = server.status()
    return status["running_count"], status["active_rows"], _sockets(server.process.pid)


async def _break(server: Served, break_it: Callable[[Proxy], None]) -> None:
    """Some streams through a proxy, which then goes bad, until the server has let go of all their rows."""
    async with proxied(server.grpc) as proxy, connected(proxy.near) as api:
        calls = [api.stream(request) for request in crowd([f"hello {n}" for n in range(STREAMS)], 90_000)]
        for call in calls:
            await read_until(call, "delta")
        break_it(proxy)
        await comes_true(lambda: server.status()["running_count"] == 1, 30)
        for call in calls:
            call.cancel()
        ended = await asyncio.gather(*map(outcome, calls), return_exceptions=True)
        assert all(isinstance(one, (Refusal, str, asyncio.CancelledError)) for one in ended)
