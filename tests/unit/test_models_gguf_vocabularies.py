"""Tokenizers of each family, made from what llama.cpp's converter writes of them, against the folder's own."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from mlx_grpc.models.gguf.header import read_header
from mlx_grpc.models.gguf.pretokenizer import pre_tokenizer
from mlx_grpc.models.gguf.tokenizer import tokenizer_json
from mlx_grpc.models.sources import ModelSourceError
from tests.helpers.gguf import write_gguf
from tests.helpers.gguf_vocabularies import Pieces, Vocabulary, byte_level, gemma, sentence_piece

TEXTS = [
    "", " ", "Hello hello HELLO helloWorld", "Don't they'LL I'm 12345 1.5e-3", "    indented\n\n\n  more \t\ttabs\r\n",
    "Größe naïve 東京 здравствуй 🙂 e\u0301", "x = [1, 22, 333];//ok\n", "<b>bold</b><i>x</i>", "\u2581odd\u2581 marks",
]  # fmt: skip
ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=30) | st.text("aeHT hlo's.,1\n\t<b>/\u2581", max_size=40)


def imported(vocabulary: Vocabulary, architecture: str = "llama") -> Tokenizer:
    """What the import makes of the vocabulary's metadata."""
    metadata = {f"tokenizer.ggml.{key}": value for key, value in vocabulary.metadata.items()}
    with tempfile.TemporaryDirectory() as folder:
        gguf = write_gguf(Path(folder) / "a.gguf", {"general.architecture": architecture, **metadata}, {})
        tokenizer: Tokenizer = Tokenizer.from_str(json.dumps(tokenizer_json(read_header(gguf))))
    return tokenizer


def agree(ours: Tokenizer, theirs: Tokenizer, text: str) -> None:
    """The same ids, which give the same text."""
    ids = ours.encode(text, add_special_tokens=False).ids
    expected: list[int] = theirs.encode(text, add_special_tokens=False).ids
    assert ids == expected
    assert ours.decode(ids, skip_special_tokens=False) == theirs.decode(ids, skip_special_tokens=False)


@functools.cache
def bytes_of(pre: str) -> tuple[Tokenizer, Tokenizer]:
    vocabulary = byte_level(pre)
    return imported(vocabulary), vocabulary.tokenizer


BYTE_LEVEL = ["gpt-2", "smollm", "llama-bpe", "dbrx", "tekken", "gpt-4o", "qwen2"]


@pytest.mark.parametrize("pre", BYTE_LEVEL)
@given(text=ANY_TEXT)
def test_byte_level_tokenizers_are_the_folders(pre: str, text: str) -> None:
    """Split and merged as the published tokenizers are, marks inside."""
    ours, theirs = bytes_of(pre)
    for sample in (text, f"<|im_start|>{text}<|im_end|>", f"<tool_call>{text}"):
        agree(ours, theirs, sample)


@pytest.mark.parametrize("pre", BYTE_LEVEL)
@pytest.mark.parametrize("text", TEXTS)
def test_byte_level_tokenizers_on_chosen_texts(pre: str, text: str) -> None:
    """Words, digits, contractions, white space, other scripts."""
    agree(*bytes_of(pre), text)


@functools.cache
def gemmas() -> tuple[Tokenizer, Vocabulary, Pieces]:
    vocabulary, pieces = gemma()
    return imported(vocabulary, "gemma3"), vocabulary, pieces


@given(text=ANY_TEXT | st.text(" \nab<>/", max_size=40))
def test_gemmas_tokenizer_is_the_folders(text: str) -> None:
    """Transformers' own Gemma tokenizer with the same vocabulary."""
    ours, vocabulary, _ = gemmas()
    for sample in (text, f"<start_of_turn>user\n{text}<end_of_turn>\n"):
        agree(ours, vocabulary.tokenizer, sample)


@pytest.mark.parametrize("text", TEXTS)
def test_gemmas_tokenizer_is_sentence_pieces(text: str) -> None:
    """The library that trained the vocabulary gives the same ids."""
    ours, _, pieces = gemmas()
    assert ours.encode(text, add_special_tokens=False).ids == pieces.processor.encode(text)


MARKS = ["<|user|>", "<|assistant|>", "<|end|>"]


@functools.cache
def llamas(architecture: str) -> tuple[Tokenizer, Vocabulary, Pieces]:
    vocabulary, pieces = sentence_piece(MARKS, marks_take_space=architecture == "phi3")
    return imported(vocabulary, architecture), vocabulary, pieces


@pytest.mark.parametrize("architecture", ["llama", "phi3"])
@given(text=ANY_TEXT)
def test_sentence_piece_tokenizers_are_the_folders(architecture: str, text: str) -> None:
    """Llama's and Mistral's, and Phi-3's, with marks of a chat inside."""
    ours, vocabulary, _ = llamas(architecture)
    for sample in (text, f"<|user|>\n{text}<|end|>\n<|assistant|>\n", f"<s> {text}</s> "):
        agree(ours, vocabulary.tokenizer, sample)


@pytest.mark.parametrize("text", TEXTS)
def test_sentence_piece_tokenizers_are_sentence_pieces(text: str) -> None:
    """The library that trained the vocabulary gives the same ids."""
    ours, _, pieces = llamas("llama")
    assert ours.encode(text, add_special_tokens=False).ids == pieces.processor.encode(text)


def test_phi3s_marks_take_the_space_after_them() -> None:
    """The file does not say so. A line's end after a mark would be tokens that the model has never seen there."""
    with_space, without = (
        [llamas(name)[0].encode(text).ids for text in ("<|user|>\nhello", "<|user|>hello")]
        for name in ("llama", "phi3")
    )
    assert with_space[0] != with_space[1]
    assert without[0] == without[1]


def test_the_default_split_is_llama_cpps() -> None:
    """Marks, words, digits by three: one after another."""
    splitter = pre_tokenizer("default")
    assert splitter
    wrapped = {"version": "1.0", "added_tokens": [], "pre_tokenizer": splitter.json, "model": _NO_MODEL}
    pieces = Tokenizer.from_str(json.dumps(wrapped)).pre_tokenizer.pre_tokenize_str("Don't pay $12345, ok?!  x")
    words = [piece.replace("\u0120", " ") for piece, _ in pieces]
    assert words == ["Don", "'", "t", " pay", " ", "$", "123", "45", ",", " ok", "?!", " ", " x"]


_NO_MODEL = {"type": "BPE", "vocab": {}, "merges": []}


@pytest.mark.parametrize(("pre", "begins"), [("llama-bpe", True), ("tekken", True), ("qwen2", False), ("gpt-2", False)])
def test_a_file_that_does_not_say_begins_as_llama_cpp_does(pre: str, begins: bool) -> None:
    """Some splits are of models that always have the begin token."""
    vocabulary = byte_level("gpt-2")
    del vocabulary.metadata["add_bos_token"]
    vocabulary.metadata["pre"] = pre
    ids = imported(vocabulary).encode("hello").ids
    assert (ids[0] == vocabulary.metadata["bos_token_id"]) == begins


def test_a_file_that_names_no_split_is_refused() -> None:
    """Files of before May 2024: what llama.cpp takes then is not the model's own."""
    vocabulary = byte_level("gpt-2")
    del vocabulary.metadata["pre"]
    with pytest.raises(ModelSourceError, match=r"no tokenizer\.ggml\.pre; convert the model again"):
        imported(vocabulary)
