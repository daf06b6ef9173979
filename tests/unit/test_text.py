"""Text from tokens, while they come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.engine.scripted.script import EOS_ID
from mlx_grpc.request import TokenLogprob
from mlx_grpc.service.generation.text import TextStream
from mlx_grpc.service.intake.tokenizer import ScriptedTokenizer, Tokenizer, load_tokenizer
from tests.helpers.tokenizer import byte_level, make_folder, sentencepiece, wordpiece

SCRIPTED = ScriptedTokenizer()
_STOP_PIECES = st.sampled_from(["a", "b", "é", "<|end|>"])
_UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.fixture(scope="module", params=[byte_level, sentencepiece, wordpiece], ids=lambda kind: kind.__name__)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """One of each kind."""
    return load_tokenizer(str(make_folder(tmp_path_factory.mktemp("tokenizer"), request.param())))


def _run(stream: TextStream, groups: Sequence[Sequence[int]]) -> tuple[str, list[int]]:
    """All that comes out when these groups go in, one take after each push."""
    text = ""
    ids: list[int] = []
    for step in (*groups, None):
        if step is None:
            stream.finish()
        else:
            stream.push(step)
        delta = stream.take()
        if delta is not None:
            text += delta.text
            ids += delta.token_ids
    return text, ids


def _each(ids: Sequence[int]) -> list[list[int]]:
    return [[token_id] for token_id in ids]


@given(text=_UNICODE)
def test_one_byte_at_a_time_gives_the_text(text: str) -> None:
    """Any text, a byte a token: the same text, all tokens, and no replacement character on the way."""
    ids = list(text.encode())
    assert _run(TextStream(SCRIPTED), _each(ids)) == (text, ids)


@given(data=st.binary(max_size=20))
def test_bytes_that_are_no_text_become_replacements(data: bytes) -> None:
    """Any bytes: what Python makes of the whole, but for the bytes of an incomplete character at the end."""
    text, ids = _run(TextStream(SCRIPTED), _each(data))
    whole = data.decode(errors="replace")
    assert whole.startswith(text)
    assert whole[len(text) :] in ("", "\ufffd", "\ufffd" * 2, "\ufffd" * 3)
    assert ids == list(data)


def test_incomplete_character_at_the_end_is_dropped() -> None:
    """The text ends before it; its tokens are there."""
    ids = list("né".encode()[:-1])
    assert _run(TextStream(SCRIPTED), [ids]) == ("n", ids)


def test_half_a_character_is_held_with_its_token() -> None:
    """Nothing of a character goes out before its last byte, its tokens neither."""
    stream = TextStream(SCRIPTED)
    first, second = "é".encode()
    stream.push([first])
    assert stream.take() is None
    stream.push([second])
    delta = stream.take()
    assert delta is not None
    assert (delta.text, delta.token_ids) == ("é", (first, second))


@pytest.mark.parametrize("text", ["Hello there, world!", "naïve café, 東京 🦊 dogs", "the quick brown fox"])
def test_streaming_equals_decoding(tokenizer: Tokenizer, text: str) -> None:
    """Token by token, each kind of tokenizer gives what it decodes as a whole."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    stream = TextStream(tokenizer, skip_special=False, start_of_text=True)
    assert _run(stream, _each(ids)) == (tokenizer.decode(ids), ids)


@given(seed=st.lists(st.integers(0, 10_000), max_size=12))
def test_random_tokens_stream_as_they_decode(tokenizer: Tokenizer, seed: list[int]) -> None:
    """Also tokens that no text encodes to, where their bytes are text at all."""
    ids = [token_id % tokenizer.vocab_size for token_id in seed]
    stream = TextStream(tokenizer, skip_special=False, start_of_text=True)
    text, released = _run(stream, _each(ids))
    assert released == ids
    whole = tokenizer.decode(ids)
    # Of bytes that are no text, tokenizers make more or fewer replacements than UTF-8's rule does.
    assert text == whole or "\ufffd" in whole


def test_space_in_front_is_dropped_only_at_the_start_of_a_text(tmp_path: Path) -> None:
    """SentencePiece's first space belongs to a text that goes on, not to one that starts."""
    tokenizer = load_tokenizer(str(make_folder(tmp_path, sentencepiece())))
    ids = tokenizer.encode("the dog", add_special_tokens=False)
    assert _run(TextStream(tokenizer, start_of_text=True), [ids])[0] == "the dog"
    assert _run(TextStream(tokenizer), [ids])[0] == " the dog"


def test_special_tokens_have_no_text() -> None:
    """They are released where they stand, silent unless their text is asked for."""
    ids = [*b"a", EOS_ID, *b"b"]
    assert _run(TextStream(SCRIPTED), _each(ids)) == ("ab", ids)
    assert _run(TextStream(SCRIPTED, skip_special=False), _each(ids)) == ("a<|end|>b", ids)


def test_text_ends_before_the_stop_string() -> None:
    """Nothing of it comes out, no token of it, and nothing after it."""
    stream = TextStream(SCRIPTED, ["END"])
    assert _run(stream, _each(b"some ENDless")) == ("some ", list(b"some "))
    assert (stream.matched, stream.tokens_seen) == ("END", 8)


def test_token_that_the_stop_string_cuts_is_kept() -> None:
    """A token whose text begins before the stop string is released, its text only up to there."""
    word = SCRIPTED.encode(" people", add_special_tokens=False)
    assert len(word) == 1
    assert _run(TextStream(SCRIPTED, ["ople"]), [word]) == (" pe", word)


def test_only_the_possible_beginning_is_held() -> None:
    """Text goes out as soon as it cannot be the stop string, the token when all its text is out."""
    stream = TextStream(SCRIPTED, ["END"])
    (word,) = SCRIPTED.encode(" people", add_special_tokens=False)
    stream.push([word, ord("E")])
    delta = stream.take()
    assert delta is not None
    assert (delta.text, delta.token_ids) == (" people", (word,))
    stream.push([ord("x")])
    delta = stream.take()
    assert delta is not None
    assert (delta.text, delta.token_ids) == ("Ex", (ord("E"), ord("x")))


def test_held_text_comes_at_the_end() -> None:
    """The beginning of a stop string that never came is text."""
    assert _run(TextStream(SCRIPTED, ["END"]), _each(b"the EN")) == ("the EN", list(b"the EN"))


def test_first_tokens_are_not_searched() -> None:
    """Before min_tokens a stop string is text; after it, it ends the text, and does not reach back."""
    stream = TextStream(SCRIPTED, ["aa"], min_tokens=3)
    assert _run(stream, _each(b"aaabaab")) == ("aaab", list(b"aaab"))
    assert stream.matched == "aa"


@pytest.mark.parametrize(
    ("stop", "text", "kept"),
    [
        ("<|end|>", "foo bar", b"foo bar"),
        ("bar<|end|>", "foo ", b"foo "),
        ("<|end|>x", "foo bar", b"foo bar"),
        ("r<|end|>x", "foo ba", b"foo ba"),
    ],
)
def test_special_token_ends_the_text_as_part_of_a_stop_string(stop: str, text: str, kept: bytes) -> None:
    """The stop string is the token's text, or has it in it: nothing of it comes out, and no token of it."""
    ids = [*b"foo bar", EOS_ID, *b"x more"]
    stream = TextStream(SCRIPTED, [stop])
    assert _run(stream, _each(ids)) == (text, list(kept))
    assert stream.matched == stop
    assert stream.tokens_seen == len("foo bar") + (2 if stop.endswith("x") else 1)


def test_special_tokens_of_each_kind_of_tokenizer_end_a_text(tokenizer: Tokenizer) -> None:
    """All of them are known by their texts."""
    specials = [number for number in range(tokenizer.vocab_size) if tokenizer.is_special(number)]
    assert sorted(tokenizer.special_texts) == sorted(tokenizer.token_bytes(number).decode() for number in specials)
    before, after = (tokenizer.encode(text, add_special_tokens=False) for text in ("hello", "world"))
    for number in specials:
        stop = tokenizer.token_bytes(number).decode()
        stream = TextStream(tokenizer, [stop], start_of_text=True)
        assert _run(stream, _each([*before, number, *after])) == (tokenizer.decode(before), before)
        assert stream.matched == stop


def test_part_of_a_special_token_ends_nothing() -> None:
    """Its text counts whole, or not at all."""
    ids = [*b"a", EOS_ID, *b"b"]
    for stop in ("<|", "|>", "end", "a<|", "|>b"):
        assert _run(TextStream(SCRIPTED, [stop, "<|end|>never"]), _each(ids)) == ("ab", ids)


def test_stop_string_is_found_across_special_tokens() -> None:
    """What is read is searched as it is read, also where the token might have been part of another stop string."""
    stream = TextStream(SCRIPTED, ["abc", "b<|end|>x"])
    assert _run(stream, _each([*b"xab", EOS_ID, *b"cd"])) == ("x", list(b"x"))
    assert stream.matched == "abc"


def test_special_token_is_held_while_it_may_begin_a_stop_string() -> None:
    """Its token comes out when it did not, in its place."""
    stream = TextStream(SCRIPTED, ["<|end|>ab"])
    stream.push([*b"x", EOS_ID, *b"a"])
    delta = stream.take()
    assert delta is not None
    assert (delta.text, delta.token_ids) == ("x", tuple(b"x"))
    stream.push([ord("c")])
    delta = stream.take()
    assert delta is not None
    assert (delta.text, delta.token_ids) == ("ac", (EOS_ID, *b"ac"))


def test_special_token_before_min_tokens_ends_nothing() -> None:
    """Like all text of the first tokens."""
    ids = [EOS_ID, *b"ab", EOS_ID, *b"c"]
    stream = TextStream(SCRIPTED, ["<|end|>"], min_tokens=3)
    assert _run(stream, _each(ids)) == ("ab", ids[:3])


def test_special_token_within_a_character_ends_the_text_there() -> None:
    """The half character is dropped like one at the end; its token came before the stop string and is kept."""
    half = list("né".encode()[:-1])
    stream = TextStream(SCRIPTED, ["<|end|>"])
    assert _run(stream, [[*half, EOS_ID, *b"x"]]) == ("n", half)
    ids = [*half, EOS_ID, "é".encode()[-1]]
    assert _run(TextStream(SCRIPTED, ["<|end|>x"]), _each(ids)) == ("né", ids)


def test_end_token_completes_a_stop_string() -> None:
    """It is not among the tokens, but what came before it belongs to the stop string."""
    stream = TextStream(SCRIPTED, ["bar<|end|>"])
    stream.push(list(b"foo bar"))
    stream.push_end(EOS_ID)
    assert _run(stream, []) == ("foo ", list(b"foo "))
    assert stream.matched == "bar<|end|>"


@given(
    data=st.text("abé\0", max_size=12),
    cuts=st.lists(st.integers(1, 4), min_size=12, max_size=24),
    stops=st.lists(st.lists(_STOP_PIECES, min_size=1, max_size=3).map("".join), max_size=2),
    min_tokens=st.integers(0, 4),
)
def test_grouping_changes_nothing(data: str, cuts: list[int], stops: list[str], min_tokens: int) -> None:
    """Tokens one by one, or several a step: the same text, tokens and stop string."""
    ids = [byte or EOS_ID for byte in data.encode()]
    groups, rest = [], ids
    for size in cuts:
        groups.append(rest[:size])
        rest = rest[size:]
    groups.append(rest)
    one = TextStream(SCRIPTED, stops, min_tokens=min_tokens)
    many = TextStream(SCRIPTED, stops, min_tokens=min_tokens)
    assert _run(one, _each(ids)) == _run(many, groups)
    assert (one.matched, one.tokens_seen) == (many.matched, many.tokens_seen)


def test_logprobs_go_with_their_tokens() -> None:
    """A held token holds its log-probability."""
    logprobs = [TokenLogprob(token_id, bytes([token_id]), -float(token_id)) for token_id in b"aE"]
    stream = TextStream(SCRIPTED, ["END"])
    stream.push(list(b"aE"), logprobs)
    delta = stream.take()
    assert delta is not None
    assert delta.logprobs == (logprobs[0],)
    stream.finish()
    delta = stream.take()
    assert delta is not None
    assert delta.logprobs == (logprobs[1],)


def test_take_without_news() -> None:
    """Nothing new is None, before the first token and after the last."""
    stream = TextStream(SCRIPTED)
    assert stream.take() is None
    stream.finish()
    assert stream.take() is None
