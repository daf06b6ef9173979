"""When a generation ends: stop strings, stop tokens, counts and time, each with what ended it."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from mlx_grpc.engine.scripted import script
from mlx_grpc.engine.scripted.script import Script
from mlx_grpc.v1 import generation_pb2
from tests.helpers.rpc import Output, Request, Stop, in_loop, kinds, read_all, read_until, serving, stepped, text_of

REPLIES = {"count": "one two three four", "ping": "pong"}
STOP_SEQUENCE = generation_pb2.FINISH_REASON_STOP_SEQUENCE
LENGTH = generation_pb2.FINISH_REASON_LENGTH


@pytest.mark.parametrize(
    ("stops", "text", "found"),
    [
        (["three"], "one two ", "three"),
        (["o t"], "one tw", "o t"),
        (["e t", "two t"], "on", "e t"),
        (["four", "r"], "one two th", "r"),
        (["one"], "", "one"),
        (["fourteen"], "one two three four", ""),
    ],
)
@in_loop
async def test_a_stop_string_is_found_across_tokens(stops: list[str], text: str, found: str) -> None:
    """The scripted model says one byte a token: nothing of the stop string is sent, and nothing else is lost."""
    request = Request(prompt="count", stop=Stop(stop_strings=stops), output=Output(token_ids=True))
    async with serving(Script(replies=REPLIES)) as (_, api):
        events = await read_all(api.stream(request))
    finished = events[-2].finished
    assert text_of(events) == text
    assert finished.stop_detail.stop_string == found
    assert finished.finish_reason == (STOP_SEQUENCE if found else generation_pb2.FINISH_REASON_STOP)
    assert bytes(number for event in events for number in event.delta.token_ids) == text.encode()


@in_loop
async def test_what_may_begin_a_stop_string_is_held_back_and_no_more() -> None:
    """Step by step: "pon" could become "pony" and waits; when it does not, all of it comes."""
    async with stepped(Script(replies=REPLIES)) as (_, api, gate):
        call = api.stream(Request(prompt="ping", stop=Stop(stop_strings=["ony"])))
        gate.step(2)  # the prompt, and p
        assert text_of(await read_until(call, "delta")) == "p"
        gate.step(3)  # o, n, g
        assert text_of(await read_until(call, "delta")) == "ong"
        gate.open()
        assert kinds(await read_all(call)) == ["finished", "completed"]


@in_loop
async def test_a_stop_token_ends_the_text_before_it() -> None:
    """It is counted, and named, and not sent."""
    request = Request(prompt="ping", stop=Stop(stop_token_ids=[ord("n")]), output=Output(token_ids=True))
    async with serving(Script(replies=REPLIES)) as (_, api):
        answer = await api.answer(request)
    (candidate,) = answer.candidates
    assert (candidate.text, list(candidate.token_ids)) == ("po", list(b"po"))
    assert candidate.finish_reason == STOP_SEQUENCE
    assert candidate.stop_detail.stop_token_id == ord("n")
    assert answer.usage.completion_tokens == 3


@pytest.mark.parametrize(
    ("stop", "text", "tokens"), [("<|end|>", "pong", 5), ("ng<|end|>", "po", 5), ("<|end|>never", "pong", 6)]
)
@in_loop
async def test_a_special_token_is_found_in_a_stop_string(stop: str, text: str, tokens: int) -> None:
    """Where the model's end token does not end it: the token's own text is what the stop string asks for."""
    request = Request(
        prompt="ping",
        stop=Stop(stop_strings=[stop], ignore_eos=True, max_tokens=tokens),
        output=Output(token_ids=True),
    )
    async with serving(Script(replies=REPLIES)) as (_, api):
        answer = await api.answer(request)
    (candidate,) = answer.candidates
    if stop.endswith("never"):
        assert candidate.finish_reason == LENGTH
        assert list(candidate.token_ids[:5]) == [*b"pong", script.EOS_ID]
    else:
        assert (candidate.text, list(candidate.token_ids)) == (text, list(text.encode()))
        assert candidate.finish_reason == STOP_SEQUENCE
        assert candidate.stop_detail.stop_string == stop
    assert answer.usage.completion_tokens == tokens


@in_loop
async def test_an_end_token_completes_a_stop_string() -> None:
    """The text ends where the stop string begins, before the model's end token."""
    request = Request(prompt="ping", stop=Stop(stop_strings=["ng<|end|>"]), output=Output(token_ids=True))
    async with serving(Script(replies=REPLIES)) as (_, api):
        events = await read_all(api.stream(request))
    assert text_of(events) == "po"
    assert events[-2].finished.finish_reason == STOP_SEQUENCE
    assert events[-2].finished.stop_detail.stop_string == "ng<|end|>"
    assert events[-1].completed.usage.completion_tokens == 5


@in_loop
async def test_max_tokens_ends_with_length() -> None:
    """Exactly so many."""
    async with serving(Script(replies=REPLIES)) as (_, api):
        answer = await api.answer(Request(prompt="count", stop=Stop(max_tokens=5)))
    assert answer.candidates[0].text == "one t"
    assert answer.candidates[0].finish_reason == LENGTH
    assert not answer.candidates[0].HasField("stop_detail")


@in_loop
async def test_max_tokens_past_the_context_is_cut_to_its_room() -> None:
    """The context's end is LENGTH, too."""
    async with serving(Script(replies=REPLIES, context_length=12)) as (_, api):
        answer = await api.answer(Request(prompt="count", stop=Stop(max_tokens=1000)))
    assert answer.candidates[0].text == "one two"
    assert answer.candidates[0].finish_reason == LENGTH


@in_loop
async def test_before_min_tokens_nothing_ends_the_text() -> None:
    """Neither a stop string nor the model's own end token."""
    stop = Stop(min_tokens=10, max_tokens=12, stop_strings=["one"])
    async with serving(Script(replies=REPLIES)) as (_, api):
        counted = await api.answer(Request(prompt="count", stop=stop))
        ended = await api.answer(Request(prompt="ping", stop=Stop(min_tokens=10, max_tokens=12)))
    assert counted.candidates[0].text == "one two thre"
    assert counted.candidates[0].finish_reason == LENGTH
    assert ended.usage.completion_tokens >= 10
    assert ended.candidates[0].text.startswith("pong")


@in_loop
async def test_ignore_eos_goes_on_past_the_end_token() -> None:
    """Until max_tokens; the end token itself has no text."""
    async with serving(Script(replies=REPLIES)) as (_, api):
        answer = await api.answer(
            Request(prompt="ping", stop=Stop(ignore_eos=True, max_tokens=8), output=Output(token_ids=True))
        )
    assert answer.candidates[0].finish_reason == LENGTH
    assert script.EOS_ID in answer.candidates[0].token_ids
    assert answer.usage.completion_tokens == 8


@in_loop
async def test_max_duration_keeps_the_text_so_far() -> None:
    """The engine stands still after three tokens: the time limit ends the call, and what there is, is the answer."""
    async with stepped(Script(replies=REPLIES)) as (server, api, gate):
        call = api.stream(Request(prompt="count", stop=Stop(max_duration=Duration(nanos=300_000_000))))
        gate.step(4)
        events = await read_all(call)
        assert text_of(events) == "one"[: len(text_of(events))]
        assert kinds(events)[-2:] == ["finished", "completed"]
        assert events[-2].finished.finish_reason == generation_pb2.FINISH_REASON_TIME_LIMIT
        gate.open()
        await server.catalog.get("").dispatcher.idle()
        assert server.active_rows == 0
