"""Bodies of the OpenAI-compatible calls: what is taken, what is refused, and under which name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.http.openai.bodies import (
    MAX_ENTRIES,
    NEUTRAL_CHAT,
    NEUTRAL_COMPLETION,
    NEUTRAL_MESSAGE,
    Body,
    ChatBody,
    CompletionBody,
)
from mlx_grpc.http.openai.errors import ApiError
from mlx_grpc.http.openai.requests import read_chat, read_completion, translated
from mlx_grpc.request import Chat, Message, Priority
from tests.helpers.house import ROOT
from tests.helpers.openai import chat

TEXT_PART = {"type": "text", "text": "x"}


def raw(body: Any) -> bytes:
    return json.dumps(body).encode()


def refused(body: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read_chat(body if isinstance(body, bytes) else raw(body), {})
    assert caught.value.status == 400
    return caught.value


def test_a_chat_becomes_the_projects_own_request() -> None:
    """Each field in its place; what was not sent stays None, for the model's own defaults."""
    body = chat("hi", stop="END", seed=-1, logit_bias={"7": 2}, max_completion_tokens=9, top_k=3, stream=True)
    call = read_chat(raw(body), {"x-priority": "High", "x-timeout": "2.5", "x-request-id": "mine"})
    request = call.request
    assert request.input == Chat((Message("user", "hi"),))
    assert request.stop.stop_strings == ("END",)
    assert request.stop.max_tokens == 9
    assert request.sampling.seed == 2**64 - 1
    assert request.sampling.logit_bias == {7: 2.0}
    assert request.sampling.top_k == 3
    assert request.sampling.temperature is None
    assert request.priority is Priority.HIGH
    assert request.request_id == "mine"
    assert (call.stream, call.timeout_seconds) == (True, 2.5)


def test_text_parts_are_put_together() -> None:
    """As gRPC's parts are."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    call = read_chat(raw({"messages": [{"role": "user", "content": parts}]}), {})
    assert call.request.input == Chat((Message("user", "ab"),))


def test_what_sdks_and_chat_pages_send_by_default_is_taken() -> None:
    """Fields without effect, and unsupported ones whose value asks for nothing."""
    without_effect = {
        "user": "u", "metadata": {"a": "b"}, "store": True, "parallel_tool_calls": True, "safety_identifier": "s",
        "prompt_cache_key": "k", "prompt_cache_retention": "24h",
    }  # fmt: skip
    neutral = {name: values[0] for name, values in NEUTRAL_CHAT.items() if values}
    history: dict[str, Any] = {
        "role": "assistant",
        "content": "x",
        "refusal": None,
        "tool_calls": [],
        "annotations": [],
        "audio": None,
    }
    body = chat("hi", **without_effect, **neutral, stream=True, stream_options={"include_obfuscation": False})
    body["messages"].insert(0, history)
    assert read_chat(raw(body), {}).request == read_chat(raw({"messages": body["messages"]}), {}).request


def test_null_is_not_sent() -> None:
    """For every field but the messages."""
    fields = dict.fromkeys((*NEUTRAL_CHAT, "temperature", "stop", "seed", "stream", "logit_bias", "user"))
    assert read_chat(raw(chat("hi", **fields)), {}) == read_chat(raw(chat("hi")), {})


@pytest.mark.parametrize("name", sorted(NEUTRAL_CHAT))
def test_other_values_of_unsupported_fields_are_refused(name: str) -> None:
    """By name, and true is not 1."""
    for value in (True, {"type": "other"}, "other"):
        error = refused(chat("hi", **{name: value}))
        assert (error.param, error.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize("name", sorted(NEUTRAL_COMPLETION))
def test_unsupported_fields_of_plain_completions(name: str) -> None:
    """echo, suffix and best_of as well."""
    with pytest.raises(ApiError) as caught:
        read_completion(raw({"prompt": "x", name: [7]}), {})
    assert (caught.value.param, caught.value.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize(
    ("prompt", "param"),
    [([], ""), (["a", "b"], "prompt"), ([1, "a"], "prompt"), (True, "prompt"), ([[1], [2]], "prompt")],
)
def test_one_prompt_a_call(prompt: Any, param: str) -> None:
    """An empty list is the service's to refuse; several prompts, and mixtures, are refused here."""
    if not param:
        assert read_completion(raw({"prompt": prompt}), {}).request.input == ()
        return
    with pytest.raises(ApiError) as caught:
        read_completion(raw({"prompt": prompt}), {})
    assert caught.value.param.startswith(param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "x", "name": "bob"}]}, "messages[0].name"),
        ({"messages": "x"}, "messages"),
        ({"messages": [{"role": "user", "content": [TEXT_PART] * 2000}] * 3}, "messages[2].content"),
        (chat("x", stream_options={"include_usage": True}), "stream_options"),
        (chat("x", max_tokens=1, max_completion_tokens=2), "max_tokens"),
        (chat("x", logit_bias={"-1": 1}), "logit_bias"),
        (chat("x", logit_bias=dict.fromkeys(map(str, range(MAX_ENTRIES + 1)), 1)), "logit_bias"),
    ],
)
def test_the_path_of_what_is_wrong(body: Any, param: str) -> None:
    """Down to the part of a message."""
    assert refused(body).param == param


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 100_000, b'{"seed": NaN}', b"\xff", b'"\\ud800"', b"9" * 9999, b"[]"]
)
def test_what_is_no_json_object(body: bytes) -> None:
    """Deep nesting, NaN and halves of characters, too."""
    assert refused(body).code in ("invalid_json", "invalid_type")


@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    """The parser's only error is the API's own."""
    refused(body)


@pytest.mark.parametrize("kind", [ChatBody, CompletionBody])
def test_the_documentation_names_every_field(kind: type[Body]) -> None:
    """What is taken and what is refused, in docs/openai.md."""
    documentation = (ROOT / "docs" / "openai.md").read_text(encoding="utf-8")
    neutral = NEUTRAL_CHAT if kind is ChatBody else NEUTRAL_COMPLETION
    assert [name for name in (*kind.model_fields, *neutral, *NEUTRAL_MESSAGE) if f"`{name}" not in documentation] == []


def test_names_are_openais() -> None:
    """The longest beginning of a path that has a name."""
    names = {"chat": "messages", "chat.messages": "messages", "stop.max_tokens": "max_completion_tokens"}
    assert translated("chat.messages[2].role", names) == "messages[2].role"
    assert translated("stop.max_tokens", names) == "max_completion_tokens"
    assert translated("stop.stop_strings[1]", names) == "stop[1]"
    assert translated("sampling.top_p", names) == "top_p"
    assert translated("priority", names) == "X-Priority"
    assert translated("", names) == ""
