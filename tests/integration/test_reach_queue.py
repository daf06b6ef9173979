"""Two hundred calls at once against a queue of 32: each ends with its tokens, or is told when to come again."""

from __future__ import annotations

import asyncio
from collections import Counter

import grpc

from mlx_grpc.engine.scripted.script import Script
from tests.helpers.rpc import Api, Request, Stop, in_loop, read_all, read_refusal, serving, stepped, until

CALLS = 200
TOKENS = 8
PLACES = 32 + 16


async def outcome(api: Api, number: int, whole: bool) -> str:
    """How one call ended: "tokens", or the reason of its refusal. Fails on anything else."""
    request = Request(prompt=f"call {number}", stop=Stop(max_tokens=TOKENS, ignore_eos=True))
    try:
        if whole:
            usage = (await api.answer(request)).usage
        else:
            usage = (await read_all(api.stream(request)))[-1].completed.usage
    except grpc.aio.AioRpcError as error:
        refusal = read_refusal(error)
        assert refusal.code == "RESOURCE_EXHAUSTED"
        assert refusal.retry_seconds is not None
        assert refusal.retry_seconds > 0
        return refusal.reason
    assert usage.completion_tokens == TOKENS
    return "tokens"


@in_loop
async def test_each_of_two_hundred_calls_ends_one_way_or_the_other() -> None:
    """The engine stands still until all have been accepted or refused: rows and queue are full, and no more than
    that is served. None hangs, none fails otherwise; afterwards the server is idle and takes calls."""
    async with stepped(max_queue=32, max_batch=16) as (server, api, gate):
        calls = asyncio.gather(*(outcome(api, number, number % 2 == 0) for number in range(CALLS)))
        stats = server.server.stats
        await until(api, lambda: stats.accepted.total() + stats.refused.total() == CALLS)
        gate.open()
        ends = Counter(await calls)
        assert ends == {"tokens": PLACES, "QUEUE_FULL": CALLS - PLACES}
        await server.catalog.get("").dispatcher.idle()
        assert server.active_rows == 0
        assert await outcome(api, CALLS, whole=True) == "tokens"


@in_loop
async def test_the_delays_spread_those_who_come_again() -> None:
    """Callers that wait as long as they are told all end with tokens, after a bounded number of tries."""

    async def insist(api: Api, number: int) -> int:
        request = Request(prompt=f"call {number}", stop=Stop(max_tokens=TOKENS, ignore_eos=True))
        for tries in range(1, 50):
            try:
                await api.answer(request)
            except grpc.aio.AioRpcError as error:
                retry_seconds = read_refusal(error).retry_seconds
                assert retry_seconds is not None
                await asyncio.sleep(retry_seconds)
            else:
                return tries
        raise AssertionError("never served")

    async with serving(Script(step_seconds=0.001), engine="process", max_queue=8, max_batch=8) as (_, api):
        assert len(await asyncio.gather(*(insist(api, number) for number in range(60)))) == 60
