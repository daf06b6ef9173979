"""Whole GGUF models of mixed types: imported by the real child, loaded by mlx_lm, compared with reference weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm.utils
import numpy as np
import pytest
from mlx.nn.layers.base import Module
from mlx.utils import tree_flatten
from mlx_lm.models import llama

from mlx_grpc.models.cache import models_dir
from mlx_grpc.models.fetch import resolve
from mlx_grpc.models.gguf.tensor_types import TENSOR_TYPES
from mlx_grpc.models.sources import GgufFile, ModelSourceError, NamedSource
from tests.helpers.gguf_blocks import Floats
from tests.helpers.gguf_models import TypedModel, matrices, typed_model

EVERY_TYPE = [tensor_type.name for tensor_type in TENSOR_TYPES.values()]
PROMPT = mx.array([[1, 70, 71, 200, 5, 90, 262, 33]])


def mixed(names: list[str]) -> dict[str, str]:
    """The matrices, with these types in turn."""
    return {matrix: names[place % len(names)] for place, matrix in enumerate(matrices())}


def q4_k_m() -> dict[str, str]:
    """As llama-quantize mixes them: Q6_K for the output, and for values and ffn_down of half the layers."""
    better = {"output", "blk.0.attn_v", "blk.0.ffn_down"}
    return {matrix: "Q6_K" if matrix in better else "Q4_K" for matrix in matrices()}


def imported(model: TypedModel, cache: Path) -> Path:
    return resolve(NamedSource(GgufFile(model.path)), cache).folder


def loaded(folder: Path, *, unpacked: bool) -> Module:
    """As the engine loads it: packed on a GPU, unpacked on a CPU."""
    network: Module = mlx_lm.utils.load_model(folder)[0]
    if unpacked:
        network = mlx_lm.utils.dequantize_model(network)
    network.set_dtype(mx.float32)
    return network


def reference_logits(folder: Path, weights: dict[str, Floats]) -> Floats:
    """Of the same architecture with the reference's weights, in float32."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    network = llama.Model(llama.ModelArgs.from_dict(config))
    network.load_weights([(name, mx.array(array)) for name, array in weights.items()])
    return np.array(network(PROMPT))


@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize(
    ("types", "limit"),
    [
        (mixed(["F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"]), 1e-5),
        (mixed(["Q4_K", "Q5_K", "IQ4_XS"]), 0.001),
        (q4_k_m(), 0.02),
        (mixed(EVERY_TYPE), 0.02),
    ],
    ids=["exact types", "nearly exact types", "Q4_K_M", "every type"],
)
def test_mixed_files_give_the_reference_logits(
    tmp_path: Path, types: dict[str, str], limit: float, unpacked: bool
) -> None:
    """mlx_lm loads the folder; weights agree, and so do logits: the root of the mean square of the differences is below
    this share of the logits' deviation. Unpacking rounds each weight to float16 once more."""
    model = typed_model(tmp_path / "mixed.gguf", types)
    folder = imported(model, tmp_path / "cache")
    far = {name: distance for name, distance in _distances(folder, model.weights).items() if distance > 0.005}
    assert not far
    expected = reference_logits(folder, model.weights)
    differences = np.array(loaded(folder, unpacked=unpacked)(PROMPT)) - expected
    assert np.sqrt((differences**2).mean()) < (limit + 0.005 * unpacked) * expected.std()


def _distances(folder: Path, weights: dict[str, Floats]) -> dict[str, float]:
    """How far each of the model's weights is at most from the reference, of the tensor's largest."""
    parameters = dict(tree_flatten(loaded(folder, unpacked=True).parameters()))  # type: ignore[no-untyped-call]
    found = {name: np.array(array) for name, array in parameters.items()}
    assert found.keys() == weights.keys()
    return {name: float(np.abs(found[name] - right).max() / np.abs(right).max()) for name, right in weights.items()}


def test_the_config_names_the_width_of_each_layer(tmp_path: Path) -> None:
    """mlx_lm reads it so: one width for all, and by name those that differ."""
    folder = imported(typed_model(tmp_path / "a.gguf", q4_k_m()), tmp_path / "cache")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    eight = {"group_size": 32, "bits": 8}
    better = ("lm_head", "model.layers.0.self_attn.v_proj", "model.layers.0.mlp.down_proj")
    assert config["quantization"] == {"group_size": 32, "bits": 4} | dict.fromkeys(better, eight)


@pytest.mark.parametrize(
    ("type_name", "dtype"), [("F32", "float32"), ("F16", "float16"), ("BF16", "bfloat16"), ("Q5_K", "float16")]
)
def test_the_arithmetic_is_of_the_files_own_type(tmp_path: Path, type_name: str, dtype: str) -> None:
    """Norms, which are float32 in every file, and scales do not raise half precision to float32."""
    folder = imported(typed_model(tmp_path / "a.gguf", mixed([type_name])), tmp_path / "cache")
    network, config = mlx_lm.utils.load_model(folder)
    assert (str(network(PROMPT).dtype), config["torch_dtype"]) == (f"mlx.core.{dtype}", dtype)


def refused(model: TypedModel, cache: Path) -> str:
    with pytest.raises(ModelSourceError) as refusal:
        imported(model, cache)
    assert not cache.exists() or not [path for path in models_dir(cache).iterdir() if path.is_dir()]
    said = str(refusal.value)
    assert "\n" not in said
    return said


def test_a_type_that_is_not_decoded_is_refused(tmp_path: Path) -> None:
    """By its name and the tensor's, with what to take instead."""
    types = q4_k_m()
    model = typed_model(tmp_path / "a.gguf", types)
    bytes_ = bytearray(model.path.read_bytes())
    place = bytes_.index(b"blk.1.attn_v.weight") + len(b"blk.1.attn_v.weight") + 4 + 2 * 8
    assert bytes_[place] == 12
    bytes_[place] = 18
    model.path.write_bytes(bytes_)
    said = refused(model, tmp_path / "cache")
    assert "'blk.1.attn_v.weight' is of type IQ3_XXS" in said
    assert "Q4_K" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"llama__embedding_length": 512}, "'token_embd.weight' has the shape"),
        ({"llama__feed_forward_length": 256}, "'blk.0.ffn_gate.weight' has the shape"),
        ({"llama__attention__head_count_kv": 4}, "'blk.0.attn_k.weight' has the shape"),
        ({"llama__block_count": 4_000_000_000}, "no tensor blk.2.attn_norm.weight"),
        ({"llama__block_count": 3}, "no tensor blk.2.attn_norm.weight"),
        ({"llama__block_count": 1}, "'blk.1.attn_q.weight' is in no plain Llama"),
    ],
)
def test_shapes_that_are_not_the_metadatas_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """In one line with the tensor's name, not as a trace when the model is loaded."""
    assert said in refused(typed_model(tmp_path / "a.gguf", q4_k_m(), **changes), tmp_path / "cache")


def test_a_file_that_ends_within_a_block_is_refused(tmp_path: Path) -> None:
    """Of Q6_K here: the last tensor's last block lacks a byte."""
    model = typed_model(tmp_path / "a.gguf", mixed(["Q6_K"]))
    bytes_ = model.path.read_bytes()
    model.path.write_bytes(bytes_[:-1])
    assert "cut short" in refused(model, tmp_path / "cache")
