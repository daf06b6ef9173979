"""GGUF files of each family, imported by the real child, against the folder of the same weights: what mlx_lm reads of
config.json, the weights, and the logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm.utils
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_grpc.models.fetch import resolve
from mlx_grpc.models.sources import GgufFile, ModelSourceError, NamedSource
from mlx_grpc.service.intake.tokenizer import HuggingFaceTokenizer
from tests.helpers.gguf_blocks import Floats
from tests.helpers.gguf_families import MODELS, convert, write_family
from tests.helpers.gguf_vocabularies import Vocabulary, byte_level, gemma, sentence_piece

PROMPT = mx.array([np.random.default_rng(5).integers(4, 300, 60).tolist()])
"""Longer than the sliding windows."""


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    """One for all: the tokenizers have tests of their own."""
    return byte_level("qwen2")


def imported(gguf: Path, cache: Path) -> Path:
    return resolve(NamedSource(GgufFile(gguf)), cache).folder


def arguments(folder: Path) -> Any:
    """config.json as mlx_lm reads it for the model."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["model_type"] = mlx_lm.utils.MODEL_REMAPPING.get(config["model_type"], config["model_type"])
    return mlx_lm.utils._get_classes(config)[1].from_dict(config)


def parameters(folder: Path) -> dict[str, Floats]:
    return floats(mlx_lm.utils.load_model(folder)[0])


def floats(network: Any) -> dict[str, Floats]:
    """The weights by name, in float32."""
    weights: dict[str, mx.array] = dict(tree_flatten(network.parameters()))
    return {name: np.array(array.astype(mx.float32)) for name, array in weights.items()}


def logits(folder: Path) -> Floats:
    network: Any = mlx_lm.utils.load_model(folder)[0]
    return np.array(network(PROMPT).astype(mx.float32))


@pytest.mark.parametrize("name", MODELS)
def test_a_file_is_the_folder_it_was_made_from(tmp_path: Path, vocabulary: Vocabulary, name: str) -> None:
    """mlx_lm reads the same arguments and the same weights, and computes the same logits. Gemma's norms were stored as
    their weight plus 1, which float32 rounds."""
    original = write_family(MODELS[name], vocabulary, tmp_path / "original")
    folder = imported(convert(original, vocabulary, tmp_path / "a.gguf"), tmp_path / "cache")
    assert arguments(folder) == arguments(original)
    found, expected = parameters(folder), parameters(original)
    assert found.keys() == expected.keys()
    rounding = 1e-6 if name.startswith("gemma") else 0.0
    assert not {at for at in found if not np.allclose(found[at], expected[at], rtol=0, atol=rounding)}
    assert np.allclose(logits(folder), logits(original), rtol=0, atol=200 * rounding)


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "gemma2", "gemma3_text", "phi3_longrope"])
@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0"])
def test_half_precision_and_quantised_files(tmp_path: Path, vocabulary: Vocabulary, name: str, kind: str) -> None:
    """Weights are near the folder's, as near as their type lets them be; arithmetic is in half precision, for Gemma in
    the one whose range holds its activations."""
    original = write_family(MODELS[name], vocabulary, tmp_path / "original")
    plain = convert(original, vocabulary, tmp_path / "plain.gguf")
    types = dict.fromkeys(matrices(plain), kind)
    folder = imported(convert(original, vocabulary, tmp_path / "a.gguf", types), tmp_path / "cache")
    network, config = mlx_lm.utils.load_model(folder)
    dtype = "bfloat16" if name.startswith("gemma") else "float16"
    assert (str(network(PROMPT).dtype), config["torch_dtype"]) == (f"mlx.core.{dtype}", dtype)
    network.set_dtype(mx.float32)
    unpacked = mlx_lm.utils.dequantize_model(network) if kind != "F16" else network
    found = floats(unpacked)
    share = {"F16": 0.004, "Q8_0": 0.01, "Q4_0": 0.13}[kind]
    expected = parameters(original)
    far = {at for at, array in expected.items() if np.abs(found[at] - array).max() > share * np.abs(array).max()}
    assert not far


def matrices(gguf: Path) -> list[str]:
    from gguf.gguf_reader import GGUFReader

    return [tensor.name for tensor in GGUFReader(gguf).tensors if len(tensor.shape) > 1]


TOKENIZERS: dict[str, Callable[[], Vocabulary]] = {
    "llama": lambda: byte_level("llama-bpe", add_bos_token=True),
    "mistral": lambda: byte_level("tekken", add_bos_token=True),
    "llama_linear": lambda: sentence_piece([], marks_take_space=False)[0],
    "qwen2": lambda: byte_level("qwen2"),
    "qwen3": lambda: byte_level("qwen2"),
    "gemma2": lambda: gemma()[0],
    "gemma3_text": lambda: gemma()[0],
    "phi3": lambda: sentence_piece(["<|user|>", "<|assistant|>", "<|end|>"], marks_take_space=True)[0],
    "phi3_longrope": lambda: byte_level("gpt-4o"),
}
TEXT = "Hello  hello,\n\n  don't: 12345 <b>東京</b> 🙂"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_server_reads_the_folders_tokenizer(tmp_path: Path, name: str) -> None:
    """Whatever transformers does about a type's tokenizers: the same ids, which give the text again; the begin token
    where the file wants it; turns end at the same tokens."""
    vocabulary = TOKENIZERS[name]()
    original = write_family(MODELS[name], vocabulary, tmp_path / "original")
    folder = imported(convert(original, vocabulary, tmp_path / "a.gguf"), tmp_path / "cache")
    ours, theirs = HuggingFaceTokenizer(folder), HuggingFaceTokenizer(original)
    for text in (TEXT, f"{vocabulary.bos}user\n{TEXT}{vocabulary.eos}\nx"):
        ids = ours.encode(text, add_special_tokens=False)
        assert ids == theirs.encode(text, add_special_tokens=False)
        assert ours.decode(ids) == theirs.decode(ids)
        assert [ours.token_bytes(token) for token in ids] == [theirs.token_bytes(token) for token in ids]
    assert ours.decode(ours.encode(TEXT, add_special_tokens=False)) == TEXT
    begins = ours.encode("x", add_special_tokens=True)[0] == vocabulary.metadata["bos_token_id"]
    assert begins == vocabulary.metadata["add_bos_token"]
    assert vocabulary.metadata["eos_token_id"] in ours.eos_ids
    assert ours.chat_template is not None


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("qwen2", {"qwen2__attention__key_length": 8}, "heads of the size 8"),
        ("qwen3", {"qwen3__attention__head_count_kv": [2, 2]}, r"layers with \[2, 2\] key heads"),
        ("qwen3", {"qwen3__embedding_length": 128}, "'token_embd.weight' has the shape"),
        ("qwen3", {"qwen3__rope__scaling__type": "yarn"}, "rope scaling 'yarn'"),
        ("gemma2", {"gemma2__rope__scaling__type": "linear"}, "rope scaling 'linear'"),
        ("gemma3_text", {"gemma3__attention__sliding_window_pattern": 9}, "sliding_window_pattern with 5 layers"),
        ("gemma3_text", {"gemma3__final_logit_softcapping": 30.0}, "gemma3.final_logit_softcapping is 30.0"),
        ("phi3_longrope", {"phi3__rope__scaling__attn_factor": 1.5}, "unknown kind of rope scaling"),
        ("phi3_longrope", {"phi3__rope__dimension_count": 16}, "must have 8 numbers each"),
        ("phi3", {"phi3__rope__scaling__type": "longrope"}, "longrope without its tensors"),
        ("phi3", {"phi3__expert_count": 16}, "a mixture of experts"),
        ("llama", {"llama__rope__scaling__factor": 4.0}, "llama.rope.scaling.factor is there without"),
        ("qwen2", {"qwen2__attention__causal": False}, "qwen2.attention.causal is False"),
    ],
)
def test_what_mlx_lm_does_not_compute_is_refused(
    tmp_path: Path, vocabulary: Vocabulary, name: str, changes: dict[str, Any], said: str
) -> None:
    """In one line that names the key or the tensor."""
    original = write_family(MODELS[name], vocabulary, tmp_path / "original")
    gguf = convert(original, vocabulary, tmp_path / "a.gguf", **changes)
    with pytest.raises(ModelSourceError, match=said) as refusal:
        imported(gguf, tmp_path / "cache")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("name", "tensor"), [("qwen2", "attn_q.bias"), ("qwen3", "attn_q_norm.weight")])
def test_a_missing_tensor_is_named(tmp_path: Path, vocabulary: Vocabulary, name: str, tensor: str) -> None:
    """One that this family has and the Llama family does not."""
    original = write_family(MODELS[name], vocabulary, tmp_path / "original")
    gguf = convert(original, vocabulary, tmp_path / "a.gguf")
    gguf.write_bytes(gguf.read_bytes().replace(b"blk.1." + tensor.encode(), b"blk.1." + b"x" * len(tensor)))
    with pytest.raises(ModelSourceError, match=rf"'blk.1.x+' is in no plain Qwen{name[-1]}"):
        imported(gguf, tmp_path / "cache")
