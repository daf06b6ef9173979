"""Waiting: who is queued, in which order calls enter, and who is refused at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from mlx_grpc.engine.scripted.script import Script
from mlx_grpc.service.intake import encode
from mlx_grpc.service.intake.tokenizer import ScriptedTokenizer
from mlx_grpc.v1 import chat_pb2
from tests.helpers.proofs.servers import outcome
from tests.helpers.rpc import (
    Refusal,
    Request,
    Stop,
    in_loop,
    kinds,
    read_all,
    read_until,
    refused,
    serving,
    stepped,
    until,
)

FEW = Stop(max_tokens=2)


@in_loop
async def test_a_call_that_waits_is_told_its_place() -> None:
    """Its first event is queued, with how many are before it; the event comes once."""
    async with stepped(max_batch=1) as (_, api, gate):
        calls = [api.stream(Request(prompt="0", stop=FEW))]
        await gate.submit_sent.wait()
        places = []
        for number in (1, 2):
            calls.append(api.stream(Request(prompt=str(number), stop=FEW)))
            (queued,) = await read_until(calls[-1], "queued")
            places.append(queued.queued.position)
        gate.open()
        events = [await read_all(call) for call in calls]
    assert places == [0, 1]
    assert [kinds(some)[0] for some in events] == ["started"] * 3


@in_loop
async def test_high_goes_before_normal_before_low() -> None:
    """Whatever order they came in; within a class, the first that came."""
    arriving = ["LOW", "NORMAL", "HIGH", "UNSPECIFIED", "HIGH"]
    async with stepped(max_batch=1) as (_, api, gate):
        calls = [api.stream(Request(prompt="0", stop=FEW))]
        await gate.submit_sent.wait()
        for number, name in enumerate(arriving, 1):
            priority = f"PRIORITY_{name}"
            calls.append(api.stream(Request(prompt=str(number), stop=FEW, priority=priority)))
            await read_until(calls[-1], "queued")
        gate.open()
        for call in calls:
            await read_all(call)
    assert [bytes(row.prompt).decode() for row in gate.submitted] == ["0", "3", "5", "2", "4", "1"]


@in_loop
async def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    """One runs, two wait, the fourth is refused; when they are done, it is accepted."""
    async with stepped(max_batch=1, max_queue=2) as (_, api, gate):
        running = api.stream(Request(prompt="0", stop=FEW))
        await gate.submit_sent.wait()
        waiting = [api.stream(Request(prompt="w", stop=FEW)) for _ in range(2)]
        for call in waiting:
            await read_until(call, "queued")
        refusal = await refused(api.answer("too many"))
        gate.open()
        for call in (running, *waiting):
            await read_all(call)
        assert await api.text("too many")
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
    assert refusal.retry_seconds is not None
    assert 0 < refusal.retry_seconds <= 60


@in_loop
async def test_a_queue_full_of_tokens_refuses_as_well() -> None:
    """The limit on waiting prompt tokens is its own."""
    async with stepped(max_batch=1, max_queue_tokens=10) as (_, api, gate):
        running = api.stream(Request(prompt="0", stop=FEW))
        await gate.submit_sent.wait()
        waiting = api.stream(Request(prompt="x" * 8, stop=FEW))
        await read_until(waiting, "queued")
        refusal = await refused(api.answer("yyyy"))
        gate.open()
        await asyncio.gather(read_all(running), read_all(waiting))
    assert refusal.reason == "QUEUE_FULL"


@in_loop
async def test_what_can_never_fit_is_refused_by_the_field_at_fault() -> None:
    """max_tokens where a shorter answer would fit, the input where even that would not."""
    async with serving(Script(memory_bytes=200_000)) as (_, api):
        answer = await refused(api.answer(Request(prompt="hi", stop=Stop(max_tokens=4000))))
        prompt = await refused(api.answer(Request(prompt="x" * 3000, stop=Stop(max_tokens=1))))
        assert await api.text(Request(prompt="hi", stop=FEW))
    for refusal in (answer, prompt):
        assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "NEVER_FITS")
        assert int(refusal.metadata["needed_bytes"]) > int(refusal.metadata["budget_bytes"])
    assert (answer.field, prompt.field) == ("stop.max_tokens", "input")


@in_loop
async def test_a_prompt_past_the_context_says_both_numbers() -> None:
    """A program can cut its prompt by them."""
    async with serving(Script(context_length=16)) as (_, api):
        refusal = await refused(api.answer("x" * 16))
        assert await api.text("x" * 15)
    assert (refusal.code, refusal.reason, refusal.field) == ("INVALID_ARGUMENT", "PROMPT_TOO_LONG", "input")
    assert refusal.metadata == {"prompt_tokens": "16", "context_length": "16"}


@in_loop
async def test_a_prompt_far_past_the_context_is_not_even_tokenized() -> None:
    """More than 64 characters for each token of the context."""
    async with serving(Script(context_length=16)) as (_, api):
        refusal = await refused(api.answer("x" * (64 * 16 + 1)))
    assert refusal.reason == "PROMPT_TOO_LONG"
    assert refusal.metadata == {"prompt_characters": "1025", "context_length": "16"}


@pytest.mark.parametrize("timeout_seconds", [2.0, 0.000_001])
@in_loop
async def test_a_deadline_that_cannot_be_met_fails_at_once(timeout_seconds: float) -> None:
    """By the measured rate the first token of this prompt is 25 seconds away."""
    slow = Script(step_seconds=0.2, prefill_tokens_per_step=32)
    async with serving(slow) as (server, api):
        await api.text(Request(prompt="x" * 64, stop=FEW))
        refusal = await refused(api.answer("x" * 4000, timeout=timeout_seconds))
        assert refusal.code == "DEADLINE_EXCEEDED"
        if timeout_seconds > 1:
            assert refusal.reason == "DEADLINE_UNREACHABLE"
            assert float(refusal.metadata["first_token_seconds"]) > timeout_seconds
        assert await api.text(Request(prompt="short", stop=FEW), timeout=60.0)
        assert server.active_rows == 0


@in_loop
async def test_a_full_queue_refuses_before_it_tokenizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred chats at once for three places: no more are rendered or tokenized than there are places, and the
    others are told QUEUE_FULL."""
    calls_of: Counter[str] = Counter()

    def counted(owner: Any, name: str) -> Any:
        method = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            calls_of[name] += 1
            return method(*arguments, **named)

        return call

    question = chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="hi")])
    async with stepped(max_batch=1, max_queue=3) as (_, api, gate):
        calls = [api.stream(Request(prompt="0", stop=FEW))]
        await gate.submit_sent.wait()
        for owner, name in ((ScriptedTokenizer, "encode"), (encode, "render_chat")):
            monkeypatch.setattr(owner, name, counted(owner, name))
        asked = [Request(chat=chat_pb2.Chat(messages=[question]), stop=FEW) for _ in range(200)]
        calls += [api.stream(request) for request in asked]
        ends = asyncio.gather(*(outcome(call) for call in calls))
        await until(api, lambda: sum(call.done() for call in calls) == 197)
        gate.open()
        refusals = [end for end in await ends if isinstance(end, Refusal)]
    assert [refusal.reason for refusal in refusals] == ["QUEUE_FULL"] * 197
    assert calls_of == {"encode": 3, "render_chat": 3}


@in_loop
async def test_a_bad_field_is_told_also_when_the_queue_is_full() -> None:
    """Trying again would not help with that one."""
    async with stepped(max_batch=1, max_queue=0) as (_, api, gate):
        running = api.stream(Request(prompt="0", stop=FEW))
        await gate.submit_sent.wait()
        of_model = await refused(api.answer(Request(prompt="1", stop=Stop(stop_token_ids=[100_000]))))
        of_any = await refused(api.answer(Request(prompt="", stop=FEW)))
        full = await refused(api.answer(Request(prompt="1", stop=FEW)))
        gate.open()
        await read_all(running)
    assert [of_model.reason, of_any.reason, full.reason] == ["INVALID_FIELD", "INVALID_FIELD", "QUEUE_FULL"]


@in_loop
async def test_a_prompt_that_is_refused_gives_its_place_back() -> None:
    """One that turns out too long while it is prepared takes no place from those that come after it."""
    async with stepped(max_batch=1, max_queue=1) as (_, api, gate):
        running = api.stream(Request(prompt="0", stop=FEW))
        await gate.submit_sent.wait()
        for _ in range(3):
            too_long = await refused(api.answer(Request(prompt="a" * 5000, stop=FEW)))
            assert too_long.reason == "PROMPT_TOO_LONG"
        waiting = api.stream(Request(prompt="1", stop=FEW))
        await read_until(waiting, "queued")
        gate.open()
        await asyncio.gather(read_all(running), read_all(waiting))
