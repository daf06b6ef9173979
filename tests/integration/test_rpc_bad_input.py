"""Bad input gets the error of the table, by name, and nobody else notices: sixteen streams run beside each case."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from mlx_grpc.engine.scripted.script import Script
from tests.acceptance.bad_input import CASES, RAISING_TEMPLATE, Case, model_of
from tests.helpers.rpc import Request, Sampling, Stop, in_loop, read_all, read_until, refused, serving, text_of, until

STREAMS = 16
GOOD = [
    Request(prompt=f"good {number}", sampling=Sampling(temperature=1.0, seed=number), stop=Stop(max_tokens=100))
    for number in range(STREAMS)
]
STEPS_ENOUGH = 16_000
"""Every stream alone and one after another would need fewer, and a pipe holds as many bytes."""


@pytest.fixture(scope="module")
def alone() -> list[str]:
    """What each good request says when nobody else is there."""
    texts: list[str] = []

    @in_loop
    async def ask() -> None:
        async with serving() as (_, api):
            texts.extend([await api.text(request) for request in GOOD])

    ask()
    return texts


@pytest.mark.parametrize("case", [*CASES, RAISING_TEMPLATE], ids=lambda case: case.name)
def test_bad_input_is_named_and_touches_nobody_else(case: Case, alone: list[str], tmp_path: Path) -> None:
    """The engine, a process of its own, makes a step for each byte in its gate; it is the same one afterwards."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    steps = os.open(gate, os.O_RDWR)

    @in_loop
    async def run() -> None:
        script = Script(gate_path=str(gate))
        async with serving(script, engine="process", max_batch=STREAMS) as (server, api):
            pid = server.engine_pid
            streams = [api.stream(request) for request in GOOD]
            reading = asyncio.gather(*(read_until(stream, "started") for stream in streams))
            while not reading.done():  # a step for each turn: the last of them may enter late
                os.write(steps, b".")
                await until(api, lambda: True, at_least=1)
            before = reading.result()
            refusal = await refused(case.send(api, await model_of(api)))
            os.write(steps, b"." * STEPS_ENOUGH)
            after = [await read_all(stream) for stream in streams]
            assert case.fits(refusal), refusal
            assert [text_of([*first, *rest]) for first, rest in zip(before, after, strict=True)] == alone
            assert server.engine_pid == pid
            assert not server.server.stats.restarts

    try:
        run()
    finally:
        os.close(steps)
