"""What people run, in tiny: each kind of cache behind a real server answers every call as alone, and across crashes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import pytest

from mlx_grpc import testing
from tests.helpers.proofs.kinds import Asked, TimedKiller, answers_as_alone, asked_alone
from tests.helpers.proofs.servers import proof, tell
from tests.helpers.rpc import connected

MODELS = ("llama", "deepseek_v3", "gemma3_text", "gemma4_text", "gpt_oss", "qwen3_5", "lfm2", "mamba", "falcon_h1")

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(mx.default_device().type != mx.DeviceType.cpu, reason="equality is the CPU's"),
]


class Model(NamedTuple):
    """A tiny model, and calls with what each is answered alone. `calls` and `kills` are how many there will be."""

    name: str
    folder: Path
    asked: list[Asked]
    calls: int
    kills: int


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, full_size: bool, tiny_models: Callable[[str], Path]) -> Model:
    """One of each."""
    name: str = request.param
    folder, (distinct, calls, kills) = tiny_models(name), (100, 500, 20) if full_size else (6, 18, 1)
    return Model(name, folder, asyncio.run(asked_alone(folder, distinct, seed=1)), calls, kills)


@proof
async def test_calls_at_random_moments_are_answered_as_alone(model: Model) -> None:
    """Prompts of 1 to 600 tokens, greedy and seeded, in and out of batch and prefix cache; no engine is lost."""
    async with (
        testing.serve(engine="process", model=(f"{model.name}={model.folder}",)) as server,
        connected(server.target) as api,
    ):
        problems = await answers_as_alone(api, model.asked, lambda done: done >= model.calls, seed=2)
        assert problems == []
        assert server.server.stats.crashes.total() == 0
        info = server.catalog.get("").info
        tell(f"{model.name}: {model.calls} calls, all as alone, 0 engines lost; {info.batching if info else ''}")


@proof
async def test_engines_that_are_killed_change_no_answer(model: Model, full_size: bool) -> None:
    """SIGKILL, each so long after the first token that follows the last restart, until all have happened."""
    killer, done = TimedKiller(model.kills, 2.0 if full_size else 0.3), 0
    async with (
        testing.serve(
            engine="process", model=(f"{model.name}={model.folder}",), start_link=killer.start_link
        ) as server,
        connected(server.target) as api,
    ):

        def enough(number: int) -> bool:
            nonlocal done
            done = number
            return number >= model.calls and not killer.left

        problems = await answers_as_alone(api, model.asked, enough, seed=3)
        assert problems == []
        assert server.server.stats.crashes.total() == model.kills
        tell(f"{model.name}: {model.kills} engines killed, {done} calls, all as alone")
