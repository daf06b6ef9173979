"""One bad request among good ones ends alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mlx_grpc import testing
from mlx_grpc.engine.scripted.script import Fault, Script
from tests.helpers.proofs.servers import all_in, crowd, outcome, proof, tell, texts
from tests.helpers.rpc import Refusal, connected

pytestmark = pytest.mark.prove

BAD = "crash"
ABORT_AT_TOKEN = 5


@pytest.mark.parametrize("place", [0, 7, 15])
@proof
async def test_one_poison_request_among_fifteen_good_ones(place: int, tmp_path: Path) -> None:
    """It aborts the engine whenever its sixth token is due; the others say what they would have said."""
    prompts = [f"good {number}" for number in range(16)]
    async with testing.serve(engine="process") as server, connected(server.target) as api:
        undisturbed = await texts(api, crowd(prompts, 40))
    prompts[place] = BAD
    script = Script(faults=[Fault(text=BAD, action="abort", at_output=ABORT_AT_TOKEN)])
    async with all_in(script, tmp_path, crowd(prompts, 40)) as batch:
        outcomes = await asyncio.gather(*map(outcome, batch.calls))
        crashes = batch.server.server.stats.crashes.total()
    bad = outcomes.pop(place)
    assert isinstance(bad, Refusal)
    assert (bad.code, bad.reason) == ("INTERNAL", "POISON_REQUEST")
    assert outcomes == undisturbed[:place] + undisturbed[place + 1 :]
    tell(f"poison in place {place}: 15 finished, 1 {bad.reason}, {crashes} crashes")
