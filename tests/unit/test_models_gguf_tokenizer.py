"""Tokenizers made from a GGUF file's vocabulary, tried with the library that will run them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from mlx_grpc.models.gguf.header import read_header
from mlx_grpc.models.gguf.tokenizer import tokenizer_config, tokenizer_json
from mlx_grpc.models.sources import ModelSourceError
from tests.helpers.gguf import small_gguf

PIECES = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)]]
WORDS = ["\u2581", "h", "e", "l", "o", "he", "ll", "llo", "hello", "\u2581hello"]
SENTENCE_PIECE: dict[str, Any] = {
    "tokenizer__ggml__model": "llama",
    "tokenizer__ggml__pre": None,
    "tokenizer__ggml__merges": None,
    "tokenizer__ggml__tokens": [*PIECES, *WORDS],
    "tokenizer__ggml__scores": [*[0.0] * len(PIECES), *[-9.0] * 5, -1.0, -2.0, -3.0, -4.0, -5.0],
    "tokenizer__ggml__token_type": [2, 3, 3, *[6] * 256, *[1] * len(WORDS)],
    "tokenizer__ggml__bos_token_id": 1,
    "tokenizer__ggml__eos_token_id": 2,
}


def _tokenizer(path: Path, **changes: Any) -> Tokenizer:
    gguf, _ = small_gguf(path / "a.gguf", None, **changes)
    tokenizer: Tokenizer = Tokenizer.from_str(json.dumps(tokenizer_json(read_header(gguf))))
    return tokenizer


@pytest.mark.parametrize("pre", ["smollm", "gpt-2", "llama-bpe", "qwen2"])
def test_any_text_survives_the_round_trip(tmp_path: Path, pre: str) -> None:
    """Bytes without a token of their own come back too."""
    tokenizer = _tokenizer(tmp_path, tokenizer__ggml__pre=pre, tokenizer__ggml__add_bos_token=False)
    text = "hello  12\n\t漢字 🙂 don't <x>"
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_merges_are_applied(tmp_path: Path) -> None:
    """A word whose merges are all there is one token."""
    assert _tokenizer(tmp_path).encode("hello").tokens == ["hello"]


def test_smollm_splits_digits_and_gpt2_does_not(tmp_path: Path) -> None:
    """The pair `12` is a token that smollm's splitting never lets arise."""
    assert _tokenizer(tmp_path).encode("12").tokens == ["1", "2"]
    assert _tokenizer(tmp_path, tokenizer__ggml__pre="gpt-2").encode("12").tokens == ["12"]


def test_control_tokens_are_found_in_text_and_skipped_in_output(tmp_path: Path) -> None:
    """A chat template's marks are single tokens, and special."""
    tokenizer = _tokenizer(tmp_path)
    ids = tokenizer.encode("<|start|>hello<|end|>").ids
    assert (ids[0], ids[-1], len(ids)) == (1, 0, 3)
    assert tokenizer.decode(ids) == "hello"


def test_the_begin_token_is_added_where_the_file_says_so(tmp_path: Path) -> None:
    """And only there."""
    assert _tokenizer(tmp_path, tokenizer__ggml__add_bos_token=True).encode("hello").ids[0] == 1
    assert _tokenizer(tmp_path).encode("hello").ids[0] != 1


def test_an_unknown_way_of_splitting_is_refused(tmp_path: Path) -> None:
    """A wrong split would give nonsense in silence."""
    with pytest.raises(ModelSourceError, match="pre-tokenizer 'other'"):
        _tokenizer(tmp_path, tokenizer__ggml__pre="other")


def test_an_unknown_kind_of_tokenizer_is_refused(tmp_path: Path) -> None:
    """WordPiece, for example."""
    with pytest.raises(ModelSourceError, match="tokenizer 'bert'"):
        _tokenizer(tmp_path, tokenizer__ggml__model="bert")


def test_sentence_piece_merges_by_score(tmp_path: Path) -> None:
    """A space goes before the text, the best pieces win, and unknown characters fall back to bytes."""
    tokenizer = _tokenizer(tmp_path, **SENTENCE_PIECE)
    assert tokenizer.encode("hello").tokens == ["<s>", "\u2581hello"]
    assert tokenizer.decode(tokenizer.encode("hello hello é").ids) == "hello hello é"


def test_the_config_names_special_tokens_and_template(tmp_path: Path) -> None:
    """What transformers reads beside the tokenizer."""
    gguf, _ = small_gguf(tmp_path / "a.gguf")
    config = tokenizer_config(read_header(gguf), 128)
    assert (config["bos_token"], config["eos_token"], config["model_max_length"]) == ("<|start|>", "<|end|>", 128)
    assert "messages" in config["chat_template"]
