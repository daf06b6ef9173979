"""Chunks that are put together from prepared halves are the JSON that they stand for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.http.openai.answers import ChatAnswer, CompletionAnswer, completion_logprobs
from mlx_grpc.request import Delta, PlacedLogprob, TopLogprob


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


def test_tokens_without_whole_characters_are_named_by_their_bytes() -> None:
    """Two parts of characters are two alternatives, and the token has the name that it has among them."""
    top = (TopLogprob(1, b"\xe2\x80", -0.1), TopLogprob(2, b"\xe2", -0.2), TopLogprob(3, b"x", -0.3))
    found = completion_logprobs([PlacedLogprob(2, b"\xe2", -0.2, top, 7)])
    assert found["top_logprobs"] == [{r"bytes:\xe2\x80": -0.1, r"bytes:\xe2": -0.2, "x": -0.3}]
    assert found["tokens"] == [r"bytes:\xe2"]
    assert found["text_offset"] == [7]


tokens = st.binary(max_size=2) | st.sampled_from([b"a", b"", b"bytes:\\x61", b"\xe2"])


@given(top=st.lists(st.tuples(st.integers(0, 9), tokens), max_size=6, unique_by=lambda one: one[0]), token=tokens)
def test_each_alternative_has_a_name_of_its_own(top: list[tuple[int, bytes]], token: bytes) -> None:
    """Also those that look alike, and the token where it is not among them; the likeliest has the plain name."""
    alternatives = tuple(TopLogprob(token_id, text, -float(rank)) for rank, (token_id, text) in enumerate(top))
    found = completion_logprobs([PlacedLogprob(10, token, -9.0, alternatives, 0)])
    (names,) = found["top_logprobs"]
    assert list(names.values()) == [one.logprob for one in alternatives]
    assert found["tokens"][0] not in names
    if top and top[0][1].isascii():
        assert next(iter(names)) == top[0][1].decode()
