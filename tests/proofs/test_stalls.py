"""An engine that stops, loops, goes deaf or eats its memory is found and replaced, and its streams go on."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from mlx_grpc import testing
from mlx_grpc.engine.scripted.script import Fault, Script
from tests.helpers.proofs.servers import all_in, crowd, outcome, proof, ready, tell, texts
from tests.helpers.rpc import StreamEvent, connected, read_all, read_until, text_of

pytestmark = pytest.mark.prove

ALLOCATE_BYTES = 512 * 1024 * 1024
PROMPTS = [f"word {number}" for number in range(8)]
SLOW = Script(step_seconds=0.005)
GRACE_SECONDS = 5.0
"""On top of the watchdog's time, for the new engine to start: what the issue promises."""


def _stall_seconds(full_size: bool) -> float:
    return 10.0 if full_size else 1.0


@proof
async def test_a_stopped_engine_is_replaced(full_size: bool) -> None:
    """SIGSTOP in the middle of eight streams: they go on within the watchdog's time and five seconds."""
    stall_seconds = _stall_seconds(full_size)
    async with (
        testing.serve(SLOW, engine="process", stall_seconds=stall_seconds) as server,
        connected(server.target) as api,
    ):
        undisturbed = await texts(api, crowd(PROMPTS, 60))
        calls = [api.stream(request) for request in crowd(PROMPTS, 60)]
        said = [await read_until(call, "delta") for call in calls]
        stopped = server.engine_pid
        assert stopped
        os.kill(stopped, signal.SIGSTOP)
        stopped_seconds = time.monotonic()
        rests = await asyncio.gather(*(_rest_after(call, stopped_seconds) for call in calls))
        assert [text_of(one + rest) for one, (rest, _) in zip(said, rests, strict=True)] == undisturbed
        resumed_seconds = max(pause for _, pause in rests)
        assert resumed_seconds < stall_seconds + GRACE_SECONDS
        assert server.server.stats.stalls.total() == 1
        with pytest.raises(ProcessLookupError):
            os.kill(stopped, 0)  # reaped, and not just replaced
        tell(f"SIGSTOP: every stream went on after at most {resumed_seconds:.1f} s; stall_seconds is {stall_seconds:g}")


async def _rest_after(call: object, since_seconds: float) -> tuple[list[StreamEvent], float]:
    """The rest of a stream, and the longest pause in it."""
    events, pause, last = [], 0.0, since_seconds
    while (event := await call.read()) != b"" and isinstance(event, StreamEvent):  # type: ignore[attr-defined]
        pause, last = max(pause, time.monotonic() - last), time.monotonic()
        events.append(event)
    return events, pause


@proof
async def test_an_engine_that_hangs_is_replaced(full_size: bool, tmp_path: Path) -> None:
    """A step that never ends, once: the child lives, reads its pipe and delivers nothing."""
    fault = Fault(text="word 3", action="hang", at_output=9, once_path=str(tmp_path / "hung"))
    await _survives(Script(faults=[fault]), tmp_path, _stall_seconds(full_size))


@proof
async def test_an_engine_that_hangs_in_prefill_is_replaced(full_size: bool, tmp_path: Path) -> None:
    """Nothing was delivered at all before it hung."""
    fault = Fault(text="word 3", action="hang", at_output=-1, once_path=str(tmp_path / "hung"))
    await _survives(Script(faults=[fault]), tmp_path, _stall_seconds(full_size))


@proof
async def test_an_engine_that_eats_its_memory_is_replaced(full_size: bool, tmp_path: Path) -> None:
    """It allocates until it is killed, as by the kernel; the streams end with their texts."""
    limit_bytes = (4 if full_size else 1) * ALLOCATE_BYTES
    fault = Fault(
        text="word 3", action="allocate", at_output=9, limit_bytes=limit_bytes, once_path=str(tmp_path / "eaten")
    )
    await _survives(Script(faults=[fault]), tmp_path, 30.0)


async def _survives(script: Script, folder: Path, stall_seconds: float) -> None:
    """Eight streams say the same as without faults; one crash, none failed."""
    async with testing.serve(engine="process") as server, connected(server.target) as api:
        undisturbed = await texts(api, crowd(PROMPTS, 40))
    async with all_in(script, folder, crowd(PROMPTS, 40), stall_seconds=stall_seconds) as batch:
        assert await asyncio.gather(*map(outcome, batch.calls)) == undisturbed
        assert batch.server.server.stats.crashes.total() == 1


@proof
async def test_a_request_that_always_eats_the_memory_is_poison(tmp_path: Path) -> None:
    """The other seven finish; the server stays and answers."""
    script = Script(faults=[Fault(text="word 3", action="allocate", at_output=9, limit_bytes=ALLOCATE_BYTES // 4)])
    async with all_in(script, tmp_path, crowd(PROMPTS, 40)) as batch:
        outcomes = await asyncio.gather(*map(outcome, batch.calls))
        assert [getattr(one, "reason", "") for one in outcomes] == ["", "", "", "POISON_REQUEST", "", "", "", ""]
        await ready(batch.server, batch.api)
        assert await batch.api.text(crowd(["still there?"], 8)[0])


@proof
async def test_a_deaf_pipe_is_a_stall(full_size: bool) -> None:
    """The stopped child reads nothing while more calls come than its pipe holds: all are served. The watchdog waits
    until all of them have come: later ones would be refused while another engine starts."""
    stall_seconds = max(5.0, _stall_seconds(full_size))
    long_prompts = [f"{number} " + "the of and " * 1200 for number in range(32)]
    async with (
        testing.serve(
            Script(context_length=16384, prefill_tokens_per_step=16384), engine="process", stall_seconds=stall_seconds
        ) as server,
        connected(server.target) as api,
    ):
        assert server.engine_pid
        os.kill(server.engine_pid, signal.SIGSTOP)
        streams = await asyncio.gather(*(read_all(api.stream(request)) for request in crowd(long_prompts, 8)))
        assert all(stream[-1].WhichOneof("event") == "completed" for stream in streams)
        assert server.server.stats.stalls.total() >= 1
