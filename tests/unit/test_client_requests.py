"""The client's arguments become protobuf requests, field for field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.client.requests.build import generate_request
from mlx_grpc.client.requests.chats import chat_message
from mlx_grpc.client.requests.options import GenerateOptions, MessageLike
from mlx_grpc.errors import InvalidField
from mlx_grpc.request import Chat, Message, Priority
from mlx_grpc.v1 import chat_pb2, generation_pb2


def test_what_is_not_given_is_not_sent() -> None:
    """A prompt alone makes a request with a prompt alone, so that the server's defaults hold."""
    assert generate_request("hi") == generation_pb2.GenerateRequest(prompt="hi")


def test_every_option_reaches_the_field_of_its_name() -> None:
    """Each setting lands in its group."""
    request = generate_request(
        token_ids=[1, 2], model="m", request_id="r", priority="low", temperature=0.5, top_p=0.9, top_k=3,
        min_p=0.25, repetition_penalty=1.5, repetition_window=9, presence_penalty=0.5, frequency_penalty=0.25,
        logit_bias={5: -1.0}, seed=11, max_tokens=8, min_tokens=1, stop_strings=["a", "b"], stop_token_ids=[4],
        ignore_eos=True, max_duration_seconds=1.5, output_token_ids=True, logprobs=True, top_logprobs=2,
    )  # fmt: skip
    sampling = generation_pb2.Sampling(
        temperature=0.5, top_p=0.9, top_k=3, min_p=0.25, repetition_penalty=1.5, repetition_window=9,
        presence_penalty=0.5, frequency_penalty=0.25, logit_bias={5: -1.0}, seed=11,
    )  # fmt: skip
    stop = generation_pb2.Stop(max_tokens=8, min_tokens=1, stop_strings=["a", "b"], stop_token_ids=[4], ignore_eos=True)
    stop.max_duration.FromMilliseconds(1500)
    assert request == generation_pb2.GenerateRequest(
        model="m",
        request_id="r",
        token_ids=generation_pb2.TokenIds(ids=[1, 2]),
        sampling=sampling,
        stop=stop,
        output=generation_pb2.Output(token_ids=True, logprobs=True, top_logprobs=2),
        priority=generation_pb2.PRIORITY_LOW,
    )


def test_the_options_cover_the_schema() -> None:
    """A field that is new in the protos must become an option here."""
    groups = (generation_pb2.Sampling, generation_pb2.Stop, generation_pb2.Output)
    fields = {name for group in groups for name in group.DESCRIPTOR.fields_by_name}
    fields |= set(generation_pb2.GenerateRequest.DESCRIPTOR.fields_by_name)
    others = {"messages", "template_args", "continue_final_message", "output_token_ids", "max_duration_seconds"}
    fields |= {f"cache_{name}" for name in generation_pb2.CacheControl.DESCRIPTOR.fields_by_name}
    ours = set(GenerateOptions.__annotations__)
    assert fields - {"sampling", "stop", "output", "prompt", "max_duration", "cache"} == ours - others


def test_zero_and_false_are_sent() -> None:
    """A value that happens to be falsy is a value."""
    request = generate_request("hi", temperature=0.0, ignore_eos=False)
    assert request.sampling.HasField("temperature")
    assert request.stop.HasField("ignore_eos")


def test_empty_token_ids_are_sent_as_such() -> None:
    """The server can then say that they are empty, rather than that there is no input."""
    assert generate_request(token_ids=[]).WhichOneof("input") == "token_ids"


def test_one_stop_string_is_not_its_letters() -> None:
    """A string where a sequence is expected means itself."""
    assert list(generate_request("hi", stop_strings="END").stop.stop_strings) == ["END"]


@pytest.mark.parametrize("priority", [Priority.HIGH, "high", "HIGH"])
def test_priority_by_name_or_value(priority: Priority | str) -> None:
    """Both spellings mean the same."""
    assert generate_request("hi", priority=priority).priority == generation_pb2.PRIORITY_HIGH


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "input"),
        ({"prompt": "a", "token_ids": [1]}, "input"),
        ({"prompt": "a", "seed": -1}, "sampling.seed"),
        ({"prompt": "a", "temperature": "hot"}, "sampling.temperature"),
        ({"prompt": "a", "logit_bias": {-1: 1.0}}, "sampling.logit_bias"),
        ({"prompt": "a", "max_tokens": -5}, "stop.max_tokens"),
        ({"prompt": "a", "max_tokens": 1.5}, "stop.max_tokens"),
        ({"prompt": "a", "max_duration_seconds": float("nan")}, "stop.max_duration"),
        ({"prompt": "a", "max_duration_seconds": float("inf")}, "stop.max_duration"),
        ({"prompt": "a", "priority": "urgent"}, "priority"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"token_ids": [-1]}, "token_ids.ids"),
        ({"prompt": "a", "template_args": {}}, "template_args"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content.text"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": []}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [], "template_args": {"a": object()}}, "template_args"),
    ],
)
def test_what_cannot_be_sent_names_its_field(arguments: dict[str, Any], field: str) -> None:
    """An argument that protobuf cannot hold, or would drop, raises InvalidField with its path."""
    with pytest.raises(InvalidField) as caught:
        generate_request(**arguments)
    assert caught.value.field == field
    assert field.rpartition(".")[2].partition("[")[0] in caught.value.message or field == "input"


def test_an_unknown_option_is_a_type_error() -> None:
    """As for any Python function."""
    with pytest.raises(TypeError, match="heat"):
        generate_request("hi", heat=1)


def test_dicts_and_messages_make_the_same_chat() -> None:
    """OpenAI's form of a turn, its parts, our dataclass, and a whole Chat."""
    turns: list[MessageLike] = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": ["a", {"type": "text", "text": "b"}]},
    ]
    expected = chat_pb2.Chat(
        messages=[
            chat_pb2.Message(role=chat_pb2.ROLE_SYSTEM, content=[chat_pb2.ContentPart(text="be brief")]),
            chat_pb2.Message(
                role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="a"), chat_pb2.ContentPart(text="b")]
            ),
        ]
    )
    assert chat_message(turns) == expected
    whole = Chat((Message("system", "be brief"), Message("user", "ab")))
    assert chat_message(None, whole) == chat_message(list(whole.messages))


def test_template_arguments_travel_as_json() -> None:
    """Whatever JSON can hold reaches the template."""
    request = generate_request(messages=[Message("user", "x")], template_args={"enable_thinking": False})
    assert json.loads(request.chat.template_args_json) == {"enable_thinking": False}


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1), st.text(st.characters(exclude_categories=["Cs"])))
def test_any_input_survives(token_ids: list[int], text: str) -> None:
    """Ids and text arrive as they were given."""
    assert list(generate_request(token_ids=token_ids).token_ids.ids) == token_ids
    assert generate_request(text).prompt == text
