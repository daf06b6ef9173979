"""The scripted model's vocabulary, its words and its faults: pure functions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.engine.scripted.script import (
    EOS_ID,
    START_ID,
    VOCAB_SIZE,
    Fault,
    Script,
    encode,
    prompt_text,
    token_bytes,
)
from mlx_grpc.engine.scripted.speaker import Speaker
from tests.helpers.worker import row


@given(st.text())
def test_encoding_loses_nothing_but_specials(text: str) -> None:
    """The tokens' bytes together are the text."""
    tokens = encode(text)
    expected = text.replace("<|end|>", "").replace("<|start|>", "")
    assert b"".join(map(token_bytes, tokens)) == expected.encode()
    assert all(0 <= token < VOCAB_SIZE for token in tokens)


def test_the_longest_match_wins() -> None:
    """A special is one token, and ` there` is the word, not ` the` and letters."""
    assert encode("<|start|> there<|end|>")[::2] == [START_ID, EOS_ID]
    assert len(encode("<|start|> there<|end|>")) == 3


def test_unused_ids_stand_for_nothing() -> None:
    """The end of the vocabulary decodes to no bytes."""
    assert token_bytes(VOCAB_SIZE - 1) == b""


def test_the_longest_key_that_ends_the_prompt_has_the_reply() -> None:
    """Keys match the end of the prompt exactly."""
    script = Script(replies={"you?": "short", "are you?": "long"})
    assert script.reply_to("how are you?") == b"long"
    assert script.reply_to("you?!") is None


def test_an_ignored_end_token_is_said_and_the_row_goes_on() -> None:
    """After the reply comes the end token, then words."""
    speaker = Speaker(row(1, "x"), Script(replies={"x": "a"}))
    assert [speaker.token(0), speaker.token(1)] == [97, EOS_ID]
    assert token_bytes(speaker.token(2)).startswith(b" ")


@given(
    position=st.integers(0, 10_000),
    bias=st.dictionaries(st.integers(0, VOCAB_SIZE - 1), st.floats(-100, 100)),
)
def test_logprobs_are_a_distribution_and_agree_with_the_token(position: int, bias: dict[int, float]) -> None:
    """They sum to 1, and the likeliest is the one that is said."""
    speaker = Speaker(row(1, "x", logit_bias=bias, top_logprobs=VOCAB_SIZE), Script())
    logprobs = speaker.logprobs(position)
    assert logprobs is not None
    assert math.isclose(sum(map(math.exp, logprobs.top_logprobs)), 1.0)
    assert logprobs.top_ids[0] == speaker.token(position)
    assert logprobs.logprob == logprobs.top_logprobs[0]


@pytest.mark.parametrize(
    ("fault", "positions"),
    [
        (Fault("bad", "abort", at_output=2), [2]),
        (Fault("bad", "slow", at_output=1), [1, 2]),
        (Fault("bad", "fail", at_output=-1), [-1]),
        (Fault("worse", "abort"), []),
    ],
)
def test_a_fault_strikes_where_it_says(fault: Fault, positions: list[int]) -> None:
    """At one position of prompts that contain its text; a slow one from there on."""
    text = prompt_text(encode("a bad prompt"))
    assert [position for position in range(-2, 3) if fault.strikes(text, position)] == positions
