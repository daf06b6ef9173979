"""Memory of the server process does not grow with the calls that it has served."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

import pytest

from tests.helpers.rpc import Api, Request, Stop, in_loop, read_all, read_until, serving

AT_ONCE = 16
GROWTH_BYTES_PER_CALL = 256
"""What a call may leave: well below the smallest thing that a leak would keep, such as its Generation."""


async def serve_calls(api: Api, count: int) -> None:
    """Short calls of all kinds: streams, whole answers, and streams that are left in the middle."""

    async def one(number: int) -> None:
        request = Request(prompt=f"call {number}", stop=Stop(max_tokens=6, stop_strings=["zzz"]))
        if number % 3 == 0:
            await api.answer(request)
        elif number % 3 == 1:
            await read_all(api.stream(request))
        else:
            call = api.stream(request)
            await read_until(call, "started")
            call.cancel()

    for first in range(0, count, AT_ONCE):
        await asyncio.gather(*(one(number) for number in range(first, min(first + AT_ONCE, count))))


@pytest.mark.prove
def test_what_a_call_leaves_is_bounded(full_size: bool) -> None:
    """Python's own allocations, client and server in one process, after a warm-up and after many more calls."""
    count = 4000 if full_size else 600

    @in_loop
    async def run() -> None:
        async with serving(max_queue=64) as (server, api):
            await serve_calls(api, 200)
            await server.catalog.get("").dispatcher.idle()
            # Its history has a frame a second until it is full after three minutes: that goes by time, not by calls.
            await server.server.monitor.close()
            tracemalloc.start()
            try:
                await serve_calls(api, 32)
                gc.collect()
                before = tracemalloc.get_traced_memory()[0]
                await serve_calls(api, count)
                await server.catalog.get("").dispatcher.idle()
                gc.collect()
                grown = tracemalloc.get_traced_memory()[0] - before
            finally:
                tracemalloc.stop()
            assert grown / count < GROWTH_BYTES_PER_CALL, f"{grown} bytes after {count} calls"

    run()
