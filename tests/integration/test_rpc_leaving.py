"""Calls that are left: cancelled, disconnected or out of time, in the queue, in prefill or decoding.

The engine makes a step only when the test says so: the row is gone one step later.
"""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import pytest

from mlx_grpc.engine.scripted.script import Script
from mlx_grpc.errors import DeadlinePassed
from mlx_grpc.request import GenerationRequest
from mlx_grpc.service.generation.call import Generation
from tests.helpers.rpc import Request, Stop, connected, in_loop, read_all, read_until, stepped, text_of, until
from tests.helpers.wire import wired

LONG = Request(prompt="a" * 12, stop=Stop(max_tokens=4000))
SHORT = Request(prompt="first", stop=Stop(max_tokens=3))
SCRIPT = Script(prefill_tokens_per_step=4)
DEADLINE_SECONDS = 1.0

# phase: steps until it is reached, the event that tells so
PHASES = {"prefill": (1, "prefill"), "decode": (4, "delta")}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("how", ["cancel", "disconnect", "deadline"])
@in_loop
async def test_a_row_is_gone_one_step_after_its_call(phase: str, how: str) -> None:
    """Nothing else is running, so the engine is then empty and the server idle."""
    steps, kind = PHASES[phase]
    async with (
        stepped(SCRIPT, max_batch=2) as (server, _, gate),
        wired(server.target) as wire,
        connected(wire.target) as leaver,
    ):
        call = leaver.stream(LONG, timeout=DEADLINE_SECONDS if how == "deadline" else None)
        gate.step(steps)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await read_until(call, kind)
            await _leave(call, how, wire.cut)
        await gate.cancel_sent.wait()
        assert server.active_rows == 1
        gate.step()
        dispatcher = server.catalog.get("").dispatcher
        await dispatcher.idle()
        assert (server.active_rows, dispatcher.active_rows) == (0, 0)


@pytest.mark.parametrize("how", ["cancel", "disconnect", "deadline"])
@in_loop
async def test_a_call_that_is_left_in_the_queue_never_enters(how: str) -> None:
    """The engine hears of the first call alone."""
    async with stepped(SCRIPT, max_batch=1) as (server, api, gate):
        first = api.stream(SHORT)
        await gate.submit_sent.wait()
        async with wired(server.target) as wire, connected(wire.target) as leaver:
            call = leaver.stream(LONG, timeout=DEADLINE_SECONDS if how == "deadline" else None)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await read_until(call, "queued")
                await _leave(call, how, wire.cut)
            dispatcher = server.catalog.get("").dispatcher
            await until(api, lambda: dispatcher.scheduler.ledger.waiting == 0)
            gate.open()
            await read_all(first)
            await dispatcher.idle()
        assert len(gate.submitted) == 1
        assert server.active_rows == 0


@pytest.mark.parametrize("how", ["cancel", "disconnect"])
@in_loop
async def test_a_whole_answers_row_is_gone_as_well(how: str) -> None:
    """Generate writes nothing before its end: only the cancellation can tell."""
    async with (
        stepped(SCRIPT) as (server, _, gate),
        wired(server.target) as wire,
        connected(wire.target) as leaver,
    ):
        call = leaver.inference.Generate(LONG)
        # The call goes out when it is waited for.
        waiting = asyncio.ensure_future(leaver.channel.channel_ready())
        await gate.submit_sent.wait()
        await waiting
        if how == "cancel":
            call.cancel()
        else:
            wire.cut()
        with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
            await call
        await gate.cancel_sent.wait()
        gate.step()
        await server.catalog.get("").dispatcher.idle()
        assert server.active_rows == 0


@in_loop
async def test_the_others_go_on() -> None:
    """One of two leaves; the other's text is that of a call alone."""
    async with stepped(SCRIPT) as (_, api, gate):
        stays, leaves = api.stream(Request(prompt="stay", stop=Stop(max_tokens=60))), api.stream(LONG)
        await until(api, lambda: len(gate.submitted) == 2)
        gate.step(10)
        await read_until(leaves, "delta")
        leaves.cancel()
        await gate.cancel_sent.wait()
        gate.open()
        beside = await read_all(stays)
        alone = await read_all(api.stream(Request(prompt="stay", stop=Stop(max_tokens=60))))
    assert text_of(beside) == text_of(alone)


@in_loop
async def test_the_servers_own_word_for_a_deadline_that_passed() -> None:
    """Over gRPC the client's own timer may speak first; the service says DEADLINE_PASSED, waiting or running."""
    async with stepped(SCRIPT, max_batch=1) as (server, _, gate):
        service, now = server.server.service, asyncio.get_running_loop().time()
        async with (
            service.generation(GenerationRequest("running"), now + DEADLINE_SECONDS) as running,
            service.generation(GenerationRequest("waiting"), now + DEADLINE_SECONDS) as waiting,
        ):
            for generation in (running, waiting):
                with pytest.raises(DeadlinePassed):
                    await _to_the_end(generation)
        gate.step()
        await server.catalog.get("").dispatcher.idle()
        assert len(gate.submitted) == 1


async def _to_the_end(generation: Generation) -> None:
    while await generation.next_events():
        pass


async def _leave(call: grpc.aio.UnaryStreamCall[object, object], how: str, cut: object) -> None:
    if how == "cancel":
        call.cancel()
    elif how == "disconnect":
        assert callable(cut)
        cut()
    else:
        await call.code()
