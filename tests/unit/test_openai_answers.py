"""Chunks that are put together from prepared halves are the JSON that they stand for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.http.openai.answers import ChatAnswer, CompletionAnswer
from mlx_grpc.request import Delta


def decoded(event: bytes) -> Any:
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert len(event.decode().splitlines()) == 2  # by Unicode's line ends, too
    return json.loads(event.removeprefix(b"data: "))


@given(st.text())
def test_any_text_comes_back_whole(text: str) -> None:
    """On one line, whatever is in it."""
    assert decoded(ChatAnswer("gen-1", "m", False, False).delta(Delta(text)))["choices"][0]["delta"] == {
        "content": text
    }
    assert decoded(CompletionAnswer("gen-1", "m", False, False).delta(Delta(text)))["choices"][0]["text"] == text


@pytest.mark.parametrize("model", ["m", '"\\u0000"', "a/b@c", "\x00"])
def test_a_model_of_any_name(model: str) -> None:
    """A name that looks like the place of the text does not take it."""
    chunk = decoded(ChatAnswer("gen-1", model, False, True).delta(Delta("hi")))
    assert chunk["model"] == model
    assert chunk["choices"][0]["delta"]["content"] == "hi"
    assert chunk["usage"] is None
