"""What a request may hold, field by field."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.errors import InvalidField, PromptTooLong
from mlx_grpc.request import Chat, GenerationRequest, Message, Output, Sampling, Stop
from mlx_grpc.service.intake.validate import (
    characters_of,
    check_characters,
    check_token_ids,
    validate,
    validate_for_model,
)

VOCAB_SIZE = 100
CONTEXT_LENGTH = 1000


def request(**fields: Any) -> GenerationRequest:
    return GenerationRequest(**{"input": "hi", **fields})


def sampling(name: str, value: Any) -> Sampling:
    return Sampling(**{name: value})


def check(found: GenerationRequest) -> None:
    validate(found)
    validate_for_model(found, VOCAB_SIZE, CONTEXT_LENGTH)


def field_of(wrong: GenerationRequest) -> str:
    """The field that is named."""
    with pytest.raises(InvalidField) as caught:
        check(wrong)
    return caught.value.field


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("temperature", [0, 0.0, 100], [-0.001, 100.1, math.nan, math.inf, -math.inf]),
        ("top_p", [1e-6, 1], [0, -1, 1.0001, math.nan]),
        ("top_k", [0, 1, VOCAB_SIZE - 1], [VOCAB_SIZE, 2**32 - 1]),
        ("min_p", [0, 1], [-0.1, 1.1, math.nan]),
        ("repetition_penalty", [1e-6, 100], [0, -1, 101, math.nan]),
        ("repetition_window", [1, 8192], [0, 8193]),
        ("presence_penalty", [-100, 100], [-101, 101, math.nan]),
        ("frequency_penalty", [-100, 100], [-101, 101, math.nan]),
        ("seed", [0, 2**64 - 1], [-1, 2**64]),
    ],
)
def test_ranges(name: str, good: list[float], bad: list[float]) -> None:
    """Both ends of each range, and past them."""
    for value in good:
        check(request(sampling=sampling(name, value)))
    for value in bad:
        assert field_of(request(sampling=sampling(name, value))) == f"sampling.{name}"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"input": None}, "input"),
        ({"input": ""}, "prompt"),
        ({"input": "half \ud83d"}, "prompt"),
        ({"input": ()}, "token_ids.ids"),
        ({"input": (1, VOCAB_SIZE)}, "token_ids.ids[1]"),
        ({"input": (-1,)}, "token_ids.ids[0]"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"request_id": "tab\t"}, "request_id"),
        ({"request_id": "é"}, "request_id"),
        ({"sampling": Sampling(logit_bias={1: math.nan})}, "sampling.logit_bias[1]"),
        ({"sampling": Sampling(logit_bias={1: 1001.0})}, "sampling.logit_bias[1]"),
        ({"sampling": Sampling(logit_bias={VOCAB_SIZE: 1.0})}, f"sampling.logit_bias[{VOCAB_SIZE}]"),
        ({"sampling": Sampling(logit_bias=dict.fromkeys(range(1025), 0.0))}, "sampling.logit_bias"),
        ({"stop": Stop(max_tokens=0)}, "stop.max_tokens"),
        ({"stop": Stop(min_tokens=3, max_tokens=2)}, "stop.min_tokens"),
        ({"stop": Stop(stop_strings=("a",) * 17)}, "stop.stop_strings"),
        ({"stop": Stop(stop_strings=("a", ""))}, "stop.stop_strings[1]"),
        ({"stop": Stop(stop_strings=("x" * 513,))}, "stop.stop_strings[0]"),
        ({"stop": Stop(stop_strings=("\udc00",))}, "stop.stop_strings[0]"),
        ({"stop": Stop(stop_token_ids=(1,) * 65)}, "stop.stop_token_ids"),
        ({"stop": Stop(stop_token_ids=(1, VOCAB_SIZE))}, "stop.stop_token_ids[1]"),
        ({"stop": Stop(max_duration_seconds=0.0)}, "stop.max_duration"),
        ({"stop": Stop(max_duration_seconds=-1.0)}, "stop.max_duration"),
        ({"stop": Stop(max_duration_seconds=math.inf)}, "stop.max_duration"),
        ({"output": Output(logprobs=True, top_logprobs=21)}, "output.top_logprobs"),
        ({"output": Output(top_logprobs=1)}, "output.top_logprobs"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], field: str) -> None:
    """The path is the proto's."""
    assert field_of(request(**fields)) == field


@pytest.mark.parametrize("number", [0, -1, -(2**31)])
def test_a_bad_limit_is_reported_as_it_was_sent(number: int) -> None:
    """A negative number is not 0."""
    with pytest.raises(InvalidField, match=f"max_tokens is {number}, "):
        check(request(stop=Stop(max_tokens=number)))


def test_a_plain_request_of_each_kind_is_good() -> None:
    """Nothing but an input is required."""
    for source in ("hi", (1, 2), Chat((Message("user", "hi"),))):
        check(request(input=source))


def test_the_limit_on_characters_is_far_from_ordinary_text() -> None:
    """64 for each token of the context, 8 where that is more than a million; the error has both numbers."""
    check_characters(1024 * 1024, 100_000)
    check_characters(1_600_000, 200_000)
    with pytest.raises(PromptTooLong):
        check_characters(1_600_001, 200_000)
    check_characters(640, 10)
    with pytest.raises(PromptTooLong) as caught:
        check_characters(641, 10)
    assert caught.value.metadata == {"prompt_characters": "641", "context_length": "10"}


def test_ids_past_the_context_are_counted_before_they_are_looked_at() -> None:
    """Whatever they are."""
    with pytest.raises(PromptTooLong) as caught:
        check(request(input=(VOCAB_SIZE,) * CONTEXT_LENGTH))
    assert caught.value.metadata == {"prompt_tokens": "1000", "context_length": "1000"}


def test_what_is_said_in_a_chat_is_counted() -> None:
    """All of it."""
    assert characters_of(Chat((Message("user", "hi"), Message("assistant", "hello")))) == 7


@given(st.lists(st.integers(-(2**40), 2**40), max_size=8), st.integers(1, 1000))
def test_token_ids_are_good_or_the_first_bad_one_is_named(ids: list[int], vocab_size: int) -> None:
    """For any ids and any vocabulary."""
    bad = [position for position, number in enumerate(ids) if not 0 <= number < vocab_size]
    if not bad:
        check_token_ids(ids, vocab_size, "ids")
        return
    with pytest.raises(InvalidField) as caught:
        check_token_ids(ids, vocab_size, "ids")
    assert caught.value.field == f"ids[{bad[0]}]"


@given(st.floats() | st.none(), st.floats() | st.none(), st.integers(0, 2**32) | st.none())
def test_no_float_gets_through_that_is_not_a_number(
    temperature: float | None, top_p: float | None, top_k: int | None
) -> None:
    """Whatever is let through is finite and in its range."""
    found = request(sampling=Sampling(temperature=temperature, top_p=top_p, top_k=top_k))
    try:
        check(found)
    except InvalidField:
        return
    for value in dataclasses.astuple(found.sampling)[:3]:
        assert value is None or math.isfinite(value)
