"""The engine is killed again and again, and no stream notices more than a pause."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mlx_grpc import testing
from mlx_grpc.engine.scripted.script import Script
from mlx_grpc.service.hosting.model_state import ModelState
from tests.helpers.llama import TEXT, make_llama
from tests.helpers.proofs.servers import Killer, Served, comes_true, crowd, proof, served, tell, texts
from tests.helpers.rpc import Api, Request, connected, read_all, text_of, until

pytestmark = pytest.mark.prove

PROMPTS = [f"{number} {TEXT[: 30 + 9 * number]}" for number in range(16)]
KILLS, FEW_KILLS = 20, 5


async def _same_with_kills(killer: Killer, max_tokens: int, script: Script | None = None, **settings: Any) -> None:
    """Sixteen streams undisturbed, then again under the killer: the texts, and one crash for each kill."""
    requests = crowd(PROMPTS, max_tokens)
    async with testing.serve(script, engine="process", **settings) as server, connected(server.target) as api:
        undisturbed = await texts(api, requests)
    async with (
        testing.serve(script, start_link=killer.start_link, **settings) as server,
        connected(server.target) as api,
    ):
        rounds = 0
        stats, host = server.server.stats, server.catalog.get("")

        def back() -> bool:
            """A kill at the end of a round is over with: new calls would be refused meanwhile, as they should be."""
            return stats.crashes.total() == killer.kills - killer.left and host.life.state is ModelState.READY

        while killer.left:
            killer.armed = False
            await until(api, back)
            calls = [api.stream(request) for request in requests]
            await until(api, lambda: len(tuple(host.dispatcher.calls)) == len(requests))
            killer.armed = True
            events = await asyncio.gather(*(read_all(call) for call in calls))
            assert [text_of(stream) for stream in events] == undisturbed
            rounds += 1
        await until(api, back)
        assert stats.crashes.total() == killer.kills
        assert stats.failed.total() == 0
        assert stats.completed.total() == 16 * rounds
    assert {"prefill", "decode"} <= set("+".join(killer.killed_in).split("+"))
    tell(f"{killer.kills} kills in {rounds} rounds of 16 streams; killed in {killer.killed_in}")


@proof
async def test_scripted_streams_survive_kills(full_size: bool) -> None:
    """8 greedy and 8 seeded streams of the scripted model: none fails, and each says what it would have said."""
    killer = Killer(kills=KILLS if full_size else FEW_KILLS, last_step=24, seed=25)
    await _same_with_kills(killer, 60, Script(prefill_tokens_per_step=256, step_seconds=0.002))


@proof
async def test_real_streams_survive_kills(full_size: bool, tmp_path: Path) -> None:
    """The same with MLX, in float32 on the CPU."""
    llama = make_llama(tmp_path / "llama")
    killer = Killer(kills=KILLS if full_size else FEW_KILLS, last_step=24, seed=2)
    await _same_with_kills(killer, 60, model=(f"llama={llama}",), prefill_step_tokens=128)


@pytest.mark.default_model
@proof
async def test_the_default_model_survives_kills_at_any_moment(full_size: bool, tmp_path: Path) -> None:
    """`mlx-grpc serve` in a process of its own, which stays the same; its engine is killed after random times."""
    if not full_size:
        pytest.skip("takes minutes; `make prove` runs it")
    requests = crowd(PROMPTS, max_tokens=64)
    with served(tmp_path, model="") as server:
        async with connected(server.grpc) as api:
            undisturbed = await texts(api, requests)
            arriving = asyncio.Lock()
            killing = asyncio.create_task(_kill_at_random_moments(server, KILLS, arriving))
            rounds = 0
            try:
                while not killing.done() or not rounds:
                    async with arriving:
                        calls = await _accepted(server, api, requests)
                    events = await asyncio.gather(*(read_all(call) for call in calls))
                    assert [text_of(stream) for stream in events] == undisturbed
                    rounds += 1
            finally:
                killing.cancel()
            kills = await killing
        status = server.status()
        assert (status["pid"], server.process.poll()) == (server.process.pid, None)
        assert (status["crashes"], status["failed"]) == (kills, {})
        tell(f"{kills} kills in {rounds} rounds of 16; {status['resumed']} resumed, one process throughout")


async def _accepted(server: Served, api: Api, requests: Sequence[Request]) -> list[Any]:
    """Streams that the server has taken. A new call is refused while an engine starts; only what was accepted must
    survive it."""
    await comes_true(server.engine_ready)
    calls = [api.stream(request) for request in requests]
    await comes_true(lambda: server.status()["running_count"] == len(requests))
    return calls


async def _kill_at_random_moments(server: Served, kills: int, arriving: asyncio.Lock) -> int:
    """Each kill comes some seconds after an engine was ready, in prefill or in decode, and not while streams arrive;
    never so soon that a request on trial alone cannot say a token, since two such crashes make it poison. Returns how
    many there were."""
    moments = random.Random(3)
    for _ in range(kills):
        await comes_true(server.engine_ready)
        await asyncio.sleep(moments.uniform(2.0, 10.0))
        async with arriving:
            pid = await asyncio.to_thread(lambda: server.engine_pid)
            assert pid
            os.kill(pid, signal.SIGKILL)
            await comes_true(lambda pid=pid: server.engine_pid != pid)  # type: ignore[misc]
    return kills
