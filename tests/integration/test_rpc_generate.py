"""Generate and StreamGenerate: events, ids, inputs, characters, log-probabilities."""

from __future__ import annotations

import math

import pytest

from mlx_grpc.engine.scripted import script
from mlx_grpc.engine.scripted.script import Script
from mlx_grpc.v1 import chat_pb2, generation_pb2
from tests.helpers.rpc import Output, Request, Sampling, Stop, in_loop, kinds, read_all, serving, text_of

REPLIES = {"ping": "pong", "wide": "Größe 東京 🙂!", "user\nhi\nassistant\n": "hello"}
STOPPED = generation_pb2.FINISH_REASON_STOP


@in_loop
async def test_the_events_of_a_stream_come_in_order() -> None:
    """Started, deltas, finished, completed; no queued event for a call that need not wait."""
    async with serving(Script(replies=REPLIES)) as (_, api):
        events = await read_all(api.stream("ping"))
    assert kinds(events) == ["started", "delta", "finished", "completed"]
    assert text_of(events) == "pong"
    finished, completed = events[-2].finished, events[-1].completed
    assert finished.finish_reason == STOPPED
    assert finished.stop_detail.stop_token_id == script.EOS_ID
    assert (completed.usage.prompt_tokens, completed.usage.completion_tokens) == (4, 5)


@in_loop
async def test_a_long_prompt_tells_how_far_it_is() -> None:
    """A prefill event for each step but the last, rising."""
    async with serving(Script(replies={"a": "b"}, prefill_tokens_per_step=4)) as (_, api):
        events = await read_all(api.stream("a" * 11))
    told = [event.prefill.processed_tokens for event in events if event.WhichOneof("event") == "prefill"]
    assert kinds(events)[0] == "started"
    assert told == sorted(told)
    assert set(told) <= {4, 8}
    assert all(event.prefill.total_tokens == 11 for event in events if event.HasField("prefill"))


@in_loop
async def test_the_whole_answer_says_what_the_stream_says() -> None:
    """Text, tokens, counts, seed and reason are the same facts."""
    request = Request(prompt="ping", request_id="mine", sampling=Sampling(seed=7), output=Output(token_ids=True))
    async with serving(Script(replies=REPLIES)) as (_, api):
        events, whole = await read_all(api.stream(request)), await api.answer(request)
    (candidate,) = whole.candidates
    assert candidate.text == text_of(events)
    assert list(candidate.token_ids) == [number for event in events for number in event.delta.token_ids]
    assert candidate.finish_reason == events[-2].finished.finish_reason
    assert candidate.stop_detail == events[-2].finished.stop_detail
    assert whole.usage == events[-1].completed.usage
    assert (whole.seed, whole.request_id, whole.model) == (7, "mine", "scripted")
    assert whole.timings.total.ToNanoseconds() >= whole.timings.time_to_first_token.ToNanoseconds() > 0


@in_loop
async def test_ids_are_in_the_trailing_metadata() -> None:
    """The server's own id is unique; the client's stands beside it, or the server's where none was sent."""
    async with serving(Script(replies=REPLIES)) as (_, api):
        named = api.stream(Request(prompt="ping", request_id="order 66"))
        events = await read_all(named)
        trailing = dict(await named.trailing_metadata())
        unnamed = api.inference.Generate(Request(prompt="ping"))
        answer, unnamed_trailing = await unnamed, dict(await unnamed.trailing_metadata())
    generation_id = events[0].started.generation_id
    assert trailing == {"x-generation-id": generation_id, "x-request-id": "order 66"}
    assert unnamed_trailing["x-request-id"] == unnamed_trailing["x-generation-id"] == answer.generation_id
    assert answer.generation_id != generation_id


@in_loop
async def test_a_chat_goes_through_the_template() -> None:
    """The model sees the rendered conversation."""
    part = chat_pb2.ContentPart
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[part(text="h"), part(text="i")])
    async with serving(Script(replies=REPLIES)) as (_, api):
        assert await api.text(Request(chat=chat_pb2.Chat(messages=[message]))) == "hello"


@in_loop
async def test_token_ids_are_taken_as_they_are() -> None:
    """No tokenizer in between."""
    async with serving(Script(replies=REPLIES)) as (_, api):
        answer = await api.answer(Request(token_ids=generation_pb2.TokenIds(ids=list(b"ping"))))
    assert answer.candidates[0].text == "pong"
    assert answer.usage.prompt_tokens == 4


@in_loop
async def test_no_delta_has_half_a_character() -> None:
    """The scripted model says bytes, one a token; each delta's text is whole characters, and together they are all."""
    request = Request(prompt="wide", output=Output(token_ids=True))
    async with serving(Script(replies=REPLIES)) as (_, api):
        events = await read_all(api.stream(request))
    assert text_of(events) == REPLIES["wide"]
    assert not any("\ufffd" in event.delta.text for event in events)
    tokens = [number for event in events for number in event.delta.token_ids]
    assert bytes(tokens).decode() == REPLIES["wide"]


@pytest.mark.parametrize("top", [0, 3])
@in_loop
async def test_log_probabilities_carry_the_bytes_of_their_tokens(top: int) -> None:
    """One for each token of the text, half a character's too; the likeliest first, the chosen one's never positive."""
    request = Request(
        prompt="wide", stop=Stop(max_tokens=4), output=Output(token_ids=True, logprobs=True, top_logprobs=top)
    )
    async with serving(Script(replies=REPLIES)) as (_, api):
        (candidate,) = (await api.answer(request)).candidates
    assert [one.token_id for one in candidate.logprobs] == list(candidate.token_ids)
    assert b"".join(one.token for one in candidate.logprobs) == REPLIES["wide"].encode()[:4]
    for one in candidate.logprobs:
        assert one.logprob <= 0
        assert len(one.top) == top
        ranks = [math.exp(other.logprob) for other in one.top]
        assert ranks == sorted(ranks, reverse=True)
        assert sum(ranks) <= 1.001


@in_loop
async def test_log_probabilities_are_sent_only_when_asked_for() -> None:
    """Neither ids nor log-probabilities ride along."""
    async with serving(Script(replies=REPLIES)) as (_, api):
        events = await read_all(api.stream("ping"))
    assert not any(event.delta.token_ids or event.delta.logprobs for event in events)
