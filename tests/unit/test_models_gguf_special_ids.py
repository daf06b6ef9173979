"""Which tokens end a turn: those that a GGUF file's metadata name, and those that models name alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlx_grpc.models.gguf.config import model_config
from mlx_grpc.models.gguf.header import read_header
from mlx_grpc.models.gguf.special_ids import special_ids
from mlx_grpc.models.gguf.tokenizer import tokenizer_json
from tests.helpers.gguf import byte_alphabet, small_gguf

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4


def _ids(folder: Path, tokens: list[str], kind: int, **changes: Any) -> dict[str, Any]:
    """Of a file with these tokens first, all of one kind, and with the bytes as ordinary tokens."""
    alphabet = byte_alphabet()
    vocabulary: dict[str, Any] = {
        "tokenizer__ggml__tokens": [*tokens, *alphabet],
        "tokenizer__ggml__token_type": [kind] * len(tokens) + [NORMAL] * len(alphabet),
        "tokenizer__ggml__bos_token_id": None,
        "tokenizer__ggml__eos_token_id": None,
    }
    gguf, _ = small_gguf(folder / "a.gguf", None, **(vocabulary | changes))
    return special_ids(read_header(gguf))


@pytest.mark.parametrize(
    "name",
    [
        "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|end_of_turn|>", "<|endoftext|>",
        "<|end_of_text|>", "<|EOT|>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "</s>",
    ],
)  # fmt: skip
def test_a_turn_ends_at_a_control_token_of_that_name(tmp_path: Path, name: str) -> None:
    """The metadata name none."""
    assert _ids(tmp_path, ["<s>", name], CONTROL) == {"eos_token_id": 1}


def test_the_metadatas_ends_come_first(tmp_path: Path) -> None:
    """eos, eot, eom, then those known by name, each once."""
    tokens = ["<|eot_id|>", "<|end_of_text|>", "<|im_end|>", "<own>", "<s>"]
    ends = {"tokenizer__ggml__eos_token_id": 1, "tokenizer__ggml__eot_token_id": 3, "tokenizer__ggml__eom_token_id": 2}
    assert _ids(tmp_path, tokens, CONTROL, **ends) == {"eos_token_id": [1, 3, 2, 0]}


@pytest.mark.parametrize(
    "name", ["<|im_start|>", "<|start_header_id|>", "<|fim_pad|>", "<pad>", "<|tool_call|>", "im_end"]
)
def test_other_control_tokens_end_nothing(tmp_path: Path, name: str) -> None:
    """Marks of roles, tools, padding and infilling stand inside of a turn."""
    assert _ids(tmp_path, [name], CONTROL) == {}


def test_ordinary_tokens_end_nothing(tmp_path: Path) -> None:
    """What a vocabulary has as plain text is text."""
    assert _ids(tmp_path, ["</s>", "<|im_end|>"], NORMAL) == {}


def test_user_defined_marks_count_but_markup_does_not(tmp_path: Path) -> None:
    """Some converters mark `<|im_end|>` so; Gemma has HTML's tags so."""
    assert _ids(tmp_path, ["</s>", "<|im_end|>"], USER_DEFINED) == {"eos_token_id": 1}


@pytest.mark.parametrize("index", [-1, 4_000_000_000, 258])
def test_an_id_past_the_vocabulary_is_none(tmp_path: Path, index: int) -> None:
    """Neither as an end nor as the begin of a text."""
    none = {"tokenizer__ggml__eos_token_id": index, "tokenizer__ggml__bos_token_id": index}
    assert _ids(tmp_path, ["<a>", "<b>"], CONTROL, tokenizer__ggml__add_bos_token=True, **none) == {}
    assert tokenizer_json(read_header(tmp_path / "a.gguf"))["post_processor"] is None


def test_the_config_has_them_too(tmp_path: Path) -> None:
    """mlx_lm reads config.json where generation_config.json has nothing."""
    tokens = ["<s>", "<|im_end|>"]
    _ids(tmp_path, tokens, CONTROL, tokenizer__ggml__eos_token_id=0)
    assert model_config(read_header(tmp_path / "a.gguf"))["eos_token_id"] == [0, 1]
