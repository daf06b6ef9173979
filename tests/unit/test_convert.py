"""Protobuf to the project's request and events back; and fields that this build does not know."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.errors import InvalidField, UnsupportedField
from mlx_grpc.request import (
    Chat,
    Completed,
    Delta,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    Message,
    Prefill,
    Priority,
    Queued,
    Sampling,
    Started,
    Timings,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from mlx_grpc.rpc import convert
from mlx_grpc.rpc.unknown_fields import refuse_unknown_fields
from mlx_grpc.v1 import chat_pb2, generation_pb2

Request = generation_pb2.GenerateRequest
part = chat_pb2.ContentPart


def test_an_empty_request_leaves_all_open() -> None:
    """What was not sent is None, so that the defaults are filled in where the model is known."""
    assert convert.generation_request(Request()) == GenerationRequest(input=None)


def test_a_value_that_was_sent_is_not_the_default() -> None:
    """Zeros that were sent are zeros."""
    settings = {
        "temperature": 0.0, "top_p": 0.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 0.0,
        "repetition_window": 0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "seed": 0,
    }  # fmt: skip
    sent: Any = settings
    found = convert.generation_request(Request(prompt="", sampling=generation_pb2.Sampling(**sent)))
    assert found.input == ""
    assert found.sampling == Sampling(**sent)


def test_a_chat_joins_its_parts() -> None:
    """In order, nothing between them."""
    chat = chat_pb2.Chat(
        messages=[
            chat_pb2.Message(role=chat_pb2.ROLE_SYSTEM, content=[part(text="be"), part(text=" kind")]),
            chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[part(text="")]),
        ],
        continue_final_message=True,
    )
    found = convert.generation_request(Request(chat=chat))
    assert found.input == Chat((Message("system", "be kind"), Message("user", "")), "", True)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (chat_pb2.Message(content=[part(text="hi")]), "chat.messages[0].role"),
        (chat_pb2.Message(role=chat_pb2.ROLE_USER), "chat.messages[0].content"),
        (chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[part()]), "chat.messages[0].content[0]"),
    ],
)
def test_a_message_that_means_nothing_is_named(message: chat_pb2.Message, field: str) -> None:
    """No role, no content, an empty part."""
    with pytest.raises(InvalidField) as caught:
        convert.chat(chat_pb2.Chat(messages=[message]))
    assert caught.value.field == field


def test_an_unknown_priority_is_refused_and_none_is_normal() -> None:
    """Open enums carry any number."""
    assert convert.generation_request(Request(prompt="x")).priority is Priority.NORMAL
    with pytest.raises(InvalidField) as caught:
        convert.generation_request(Request.FromString(b"\x68\x63"))
    assert caught.value.field == "priority"


def test_a_duration_becomes_seconds() -> None:
    """To the nanosecond."""
    stop = generation_pb2.Stop(max_duration=Duration(seconds=1, nanos=500_000_000))
    assert convert.generation_request(Request(stop=stop)).stop.max_duration_seconds == 1.5


@given(st.floats(-10, 1e6))
def test_seconds_become_a_duration(seconds: float) -> None:
    """Never negative, which a clock that was read twice could make them."""
    assert convert.duration(seconds).ToNanoseconds() == max(0, round(seconds * 1e9))


USAGE = Usage(3, 1, 2)
TIMINGS = Timings(0.1, 0.2, 0.3, 0.4, 1.0)
LOGPROB = TokenLogprob(5, b"\xf0", -0.5, (TopLogprob(5, b"\xf0", -0.5), TopLogprob(6, b"x", -1.0)))


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (Queued(3, None), "queued"),
        (Queued(3, 1.5), "queued"),
        (Started("g", "r", "m", 3, 1, 2**64 - 1), "started"),
        (Prefill(1, 2), "prefill"),
        (Delta("x", (5,), (LOGPROB,)), "delta"),
        (Finished(FinishReason.STOP_SEQUENCE, stop_string="END"), "finished"),
        (Completed(USAGE, TIMINGS), "completed"),
    ],
)
def test_each_event_has_its_message(event: Event, kind: str) -> None:
    """Under the name of the proto."""
    assert convert.stream_response(event).WhichOneof("event") == kind


def test_the_facts_of_events_are_kept() -> None:
    """Those that another type could lose: absent and present waits, 64 bits, bytes, what ended it."""
    assert not convert.stream_response(Queued(3, None)).queued.HasField("estimated_wait")
    assert convert.stream_response(Queued(3, 1.5)).queued.estimated_wait.ToMilliseconds() == 1500
    assert convert.stream_response(Started("g", "r", "m", 3, 1, 2**64 - 1)).started.seed == 2**64 - 1
    (logprob,) = convert.stream_response(Delta("x", (5,), (LOGPROB,))).delta.logprobs
    assert (logprob.token, [top.token_id for top in logprob.top]) == (b"\xf0", [5, 6])
    ends = [
        Finished(FinishReason.STOP, stop_token_id=0),
        Finished(FinishReason.STOP_SEQUENCE, stop_string="END"),
        Finished(FinishReason.LENGTH),
    ]
    finished = [convert.stream_response(end).finished for end in ends]
    assert finished[0].stop_detail.WhichOneof("stop") == "stop_token_id"
    assert finished[1].stop_detail.stop_string == "END"
    assert not finished[2].HasField("stop_detail")


def test_every_finish_reason_has_its_word() -> None:
    """None is sent as unspecified."""
    words = {convert.finish_reason(Finished(reason)) for reason in FinishReason}
    assert len(words) == len(FinishReason)
    assert generation_pb2.FINISH_REASON_UNSPECIFIED not in words


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"\x7a\x00", "tools"),
        (b"\x92\x01\x00", "response_format"),
        (b"\x98\x01\x02", "candidates"),
        (b"\xba\x3e\x00", "#999"),
        (b"\x52\x02\x78\x01", "sampling.#15"),
        (b"\x22\x08\x0a\x06\x08\x03\x12\x02\x12\x00", "chat.messages[0].content[0].image"),
    ],
)
def test_fields_of_a_newer_schema_are_refused_by_name(data: bytes, field: str) -> None:
    """By the name that the gaps in the protos give them, else by their number; at any depth."""
    with pytest.raises(UnsupportedField) as caught:
        refuse_unknown_fields(Request.FromString(data))
    assert caught.value.field == field


def test_known_fields_are_let_through() -> None:
    """Maps, repeated fields and well-known types among them."""
    refuse_unknown_fields(
        Request(
            chat=chat_pb2.Chat(messages=[chat_pb2.Message(content=[part(text="x")])]),
            sampling=generation_pb2.Sampling(logit_bias={1: 2.0}),
            stop=generation_pb2.Stop(stop_strings=["x"], max_duration=Duration(seconds=1)),
        )
    )
