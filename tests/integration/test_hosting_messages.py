"""What goes to an engine and comes from it: rows of any size, and bugs of our own in taking in its steps."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from mlx_grpc.engine import messages
from mlx_grpc.engine.link.frames import FrameReader
from mlx_grpc.engine.messages import FromWorker, RowToken, Step, encode
from mlx_grpc.engine.scripted.script import Script
from mlx_grpc.service.generation.call import Generation
from mlx_grpc.service.hosting.delivery import Delivery
from mlx_grpc.v1 import generation_pb2
from tests.helpers.rpc import Request, Stop, in_loop, read_all, read_until, refused, serving

TokenIds = generation_pb2.TokenIds
FRAME_BYTES = 64 * 1024
"""In place of 64 MiB, so that a test need not move so much."""
LONG = Script(context_length=200_000, prefill_tokens_per_step=100_000, step_seconds=0.01)
TOKENS = 60


def long_prompt(number: int, tokens: int = 8_000) -> Request:
    ids = [300] * (tokens - 1) + [number]
    return Request(token_ids=TokenIds(ids=ids), stop=Stop(max_tokens=TOKENS, ignore_eos=True))


@in_loop
async def test_rows_that_enter_together_may_be_more_than_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight long prompts came one by one; when their engine is lost, they enter the next one together, and all end."""
    monkeypatch.setattr(messages, "MAX_FRAME_BYTES", FRAME_BYTES)
    async with serving(LONG, engine="process", max_batch=8) as (server, api):
        calls = [api.stream(long_prompt(number)) for number in range(8)]
        for call in calls:
            await read_until(call, "delta")
        assert server.engine_pid is not None
        os.kill(server.engine_pid, signal.SIGKILL)
        ends = await asyncio.gather(*map(read_all, calls))
        assert server.server.stats.crashes.total() == 1
    assert [events[-1].completed.usage.completion_tokens for events in ends] == [TOKENS] * 8


@in_loop
async def test_a_row_that_no_frame_can_hold_is_refused_before_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its prompt, or by what it would have generated when it must be resumed; others go on."""
    monkeypatch.setattr(messages, "MAX_FRAME_BYTES", FRAME_BYTES)
    async with serving(LONG, engine="process") as (server, api):
        by_prompt = await refused(api.answer(long_prompt(1, tokens=20_000)))
        by_output = await refused(api.answer(Request(prompt="hi", stop=Stop(max_tokens=20_000))))
        assert await api.text("hi")
        assert server.server.stats.accepted.total() == 1
    for refusal in (by_prompt, by_output):
        assert (refusal.code, refusal.reason, refusal.field) == ("INVALID_ARGUMENT", "NEVER_FITS", "input")


class Pipe:
    """A FrameReader, and what it told."""

    def __init__(self, on_message: Callable[[FromWorker], None] | None = None) -> None:
        self.messages: list[FromWorker] = []
        self.broken: list[str] = []
        self.reader = FrameReader(on_message or self.messages.append, self.broken.append, asyncio.Event())


def test_frames_come_through_in_pieces() -> None:
    """However the pipe cuts them."""
    pipe, step = Pipe(), Step(tokens=[RowToken(1, 2)])
    for byte in encode(step) * 2:
        pipe.reader.data_received(bytes([byte]))
    assert (pipe.messages, pipe.broken) == ([step, step], [])


@pytest.mark.parametrize("data", [b"\0\0\0\1x", b"\xff\xff\xff\xff"], ids=["not a message", "too long"])
def test_bytes_that_are_no_message_break_the_pipe(data: bytes) -> None:
    """The two sides no longer understand each other."""
    pipe = Pipe()
    pipe.reader.data_received(data)
    assert len(pipe.broken) == 1
    assert pipe.messages == []


def test_an_error_of_who_takes_the_message_is_no_broken_frame() -> None:
    """Also not a ValueError: it is for the owner of the message to see."""

    def failing(message: FromWorker) -> None:
        raise ValueError("mine")

    pipe = Pipe(failing)
    with pytest.raises(ValueError, match="mine"):
        pipe.reader.data_received(encode(Step()))
    assert pipe.broken == []


@in_loop
async def test_a_bug_that_one_call_brings_to_light_ends_that_call_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """INTERNAL with an id that the log has beside the traceback; its neighbours and the engine notice nothing."""
    token = Generation.token

    def buggy(self: Generation, *arguments: Any) -> None:
        if self.request.request_id == "bad" and len(self.output_ids) == 3:
            raise ValueError("a bug in the text of one call")
        token(self, *arguments)

    monkeypatch.setattr(Generation, "token", buggy)
    stop = Stop(max_tokens=20, ignore_eos=True)
    async with serving(Script(step_seconds=0.005), engine="process") as (server, api):
        pid = server.engine_pid
        good = [asyncio.create_task(api.answer(Request(prompt=f"good {n}", stop=stop))) for n in range(3)]
        refusal = await refused(api.answer(Request(prompt="bad", request_id="bad", stop=stop)))
        answers = await asyncio.gather(*good)
        await server.catalog.get("").dispatcher.idle()
        assert (server.engine_pid, server.server.stats.crashes.total()) == (pid, 0)
    assert [answer.usage.completion_tokens for answer in answers] == [20, 20, 20]
    assert (refusal.code, refusal.reason) == ("INTERNAL", "INTERNAL")
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.levelno == logging.ERROR
    assert refusal.metadata["error_id"] in record.getMessage()


@in_loop
async def test_a_step_that_we_cannot_take_in_loses_no_token(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Half of it may have been told: the engine is replaced, and each stream says what it would have said. The log
    calls it our bug."""
    requests = [Request(prompt=f"word {n}", stop=Stop(max_tokens=20, ignore_eos=True)) for n in range(4)]
    tokens, steps = Delivery.tokens, 0

    def buggy(self: Delivery, *arguments: Any) -> list[int]:
        nonlocal steps
        steps += 1
        if steps == 8:
            raise ValueError("a bug in the books")
        return tokens(self, *arguments)

    async with serving(Script(step_seconds=0.005), engine="process") as (server, api):
        undisturbed = await asyncio.gather(*map(api.text, requests))
        monkeypatch.setattr(Delivery, "tokens", buggy)
        assert await asyncio.gather(*map(api.text, requests)) == undisturbed
        assert server.server.stats.crashes.total() == 1
        assert server.server.stats.failed.total() == 0
    said = [record.getMessage() for record in caplog.records]
    assert any("bug of this server" in line for line in said)
    assert not any("message" in line for line in said if "lost its engine" in line)
