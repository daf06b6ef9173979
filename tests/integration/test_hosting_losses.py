"""What is left when an engine was lost: one watchdog, and calls that finish, also where the model is being unloaded."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from mlx_grpc.engine.scripted.script import Fault, Script
from mlx_grpc.service.hosting.host import ModelHost
from mlx_grpc.service.hosting.model_state import ModelState
from mlx_grpc.testing import LocalServer
from tests.helpers.rpc import Api, Request, Stop, in_loop, read_all, read_until, refused, serving, text_of, until

CALLS = 3
SLOW = Script(step_seconds=0.01, load_seconds=0.3)


def watchdogs() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("watchdog")]


def kill(host: ModelHost) -> None:
    assert host.engine_pid is not None
    os.kill(host.engine_pid, signal.SIGKILL)


async def lost(host: ModelHost, api: Api) -> None:
    """Returns when the engine, killed here, is known to be gone."""
    kill(host)
    await until(api, lambda: host.life.state is ModelState.LOADING)


@in_loop
async def test_one_watchdog_is_left_after_five_crashes() -> None:
    """Each ends with its engine, however soon the next one comes."""
    async with serving(engine="process") as (server, api):
        host = server.catalog.get("")
        for _ in range(5):
            await api.text(Request(prompt="hi", stop=Stop(max_tokens=1)))  # so that the next restart is quick again
            await lost(host, api)
            await host.life.settled()
            assert host.life.state is ModelState.READY
        assert len(watchdogs()) == 1
    assert watchdogs() == []


async def running(server: LocalServer, api: Api) -> tuple[list[asyncio.Task[str]], list[str]]:
    """Streams in the middle of their text, and what they would say undisturbed."""
    requests = [Request(prompt=f"word {n}", stop=Stop(max_tokens=60, ignore_eos=True)) for n in range(CALLS)]
    undisturbed = list(await asyncio.gather(*map(api.text, requests)))
    calls = [api.stream(request) for request in requests]
    said = [await read_until(call, "delta") for call in calls]

    async def rest(number: int) -> str:
        return text_of(said[number] + await read_all(calls[number]))

    return [asyncio.create_task(rest(number)) for number in range(CALLS)], undisturbed


@in_loop
async def test_unloading_during_a_resume_lets_accepted_calls_finish() -> None:
    """Without force: they go on in the next engine to their end, and only then is the model UNLOADED."""
    async with serving(SLOW, engine="process") as (server, api):
        host = server.catalog.get("")
        streams, undisturbed = await running(server, api)
        await lost(host, api)
        server.catalog.unload(host.source.id, force=False)
        assert host.life.state is ModelState.UNLOADING
        assert await asyncio.gather(*streams) == undisturbed
        await host.life.settled()
        assert (host.life.state, host.engine_pid) == (ModelState.UNLOADED, None)


@in_loop
async def test_an_engine_lost_during_unloading_ends_no_call() -> None:
    """The other order of the same two."""
    async with serving(SLOW, engine="process") as (server, api):
        host = server.catalog.get("")
        streams, undisturbed = await running(server, api)
        server.catalog.unload(host.source.id, force=False)
        kill(host)
        assert await asyncio.gather(*streams) == undisturbed
        await host.life.settled()
        assert (host.life.state, server.server.stats.crashes.total()) == (ModelState.UNLOADED, 1)


@in_loop
async def test_forced_unloading_during_a_resume_says_draining() -> None:
    """Somebody else may serve them."""
    async with serving(SLOW, engine="process") as (server, api):
        host = server.catalog.get("")
        streams, _ = await running(server, api)
        await lost(host, api)
        server.catalog.unload(host.source.id, force=True)
        refusals = [await refused(stream) for stream in streams]
        await host.life.settled()
        assert host.life.state is ModelState.UNLOADED
    assert {refusal.reason for refusal in refusals} == {"DRAINING"}


@in_loop
async def test_a_call_that_is_tokenized_while_unloading_begins_is_told_draining(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And so is one that comes later: the model is going away, it is not unknown."""
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(*_: object) -> list[int]:
        entered.set()
        await go_on.wait()
        return [1, 2, 3]

    async with serving(Script(step_seconds=0.01)) as (server, api):
        host = server.catalog.get("")
        stream = api.stream(Request(prompt="a", stop=Stop(max_tokens=200, ignore_eos=True)))
        await read_until(stream, "delta")
        monkeypatch.setattr("mlx_grpc.service.service.encode_prompt", slowly)
        call = asyncio.create_task(refused(api.answer("hi")))
        await entered.wait()
        server.catalog.unload(host.source.id, force=False)
        later = await refused(api.answer("hi"))
        go_on.set()
        assert ((await call).code, (await call).reason) == ("UNAVAILABLE", "DRAINING")
        assert later.reason == "DRAINING"
        await read_all(stream)


@in_loop
async def test_unloading_ends_when_the_engine_never_comes_back() -> None:
    """The calls that waited for it fail with the model's failure, and the model is UNLOADED as was asked."""
    script = Script(step_seconds=0.01, faults=[Fault("word", "abort", at_output=30)])
    async with serving(script, engine="process") as (server, api):
        host = server.catalog.get("")
        call = api.stream(Request(prompt="word", stop=Stop(max_tokens=60, ignore_eos=True)))
        await read_until(call, "delta")
        server.catalog.unload(host.source.id, force=False)
        refusal = await refused(read_all(call))
        await host.life.settled()
        assert host.life.state is ModelState.UNLOADED
    assert refusal.reason == "POISON_REQUEST"
