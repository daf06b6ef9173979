"""The weights of every tensor type, as MLX will see them, against the values that the package `gguf` gives."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlx_grpc.models.gguf import tensors
from mlx_grpc.models.gguf.blocks import rounded
from mlx_grpc.models.gguf.header import TensorInfo
from mlx_grpc.models.gguf.layout import PlannedTensor, WeightPlan
from mlx_grpc.models.gguf.tensor_types import GROUP_SIZE, TENSOR_TYPES, TensorType
from mlx_grpc.models.gguf.tensors import row_order, write_weights
from mlx_grpc.models.sources import ModelSourceError
from tests.helpers.gguf_blocks import Blocks, Floats, random_blocks

HALF = 2.0**-11  # how far float16 rounds, of a number
# How far a weight may move, of the largest weight in its group: exact types 0; IQ4_XS by the rounding of its scale;
# Q4_K and Q5_K by that of scale and bias, which together are at most three times that weight; those rounded to 8 bits
# by half a step more.
MAY_MOVE = {"IQ4_XS": HALF, "Q4_K": 3 * HALF, "Q5_K": 3 * HALF} | dict.fromkeys(
    ("Q2_K", "Q3_K", "Q6_K"), 1 / 254 + HALF
)
BY_NAME = {tensor_type.name: tensor_type for tensor_type in TENSOR_TYPES.values()}
OWN_DTYPE = {"F32": "float32", "BF16": "bfloat16"}


def imported(folder: Path, blocks: Blocks, dtype: str = "float16", heads: int = 0) -> dict[str, mx.array]:
    """What the import writes for one tensor that does not begin at the start of its file."""
    source = folder / "tensor.gguf"
    source.write_bytes(b"\0" * 96 + blocks.rows.tobytes())
    shape = blocks.shape if len(blocks.shape) > 1 else (blocks.shape[0],)
    planned = PlannedTensor(TensorInfo("blk.0.x", shape, BY_NAME[blocks.type_name], 96), "x", "weight", heads)
    write_weights(WeightPlan([planned], dtype), source, folder / "model.safetensors", lambda done, total: None)
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    return weights


def as_numbers(arrays: dict[str, mx.array], tensor_type: TensorType) -> Floats:
    """By MLX's own dequantisation, in float32."""
    if tensor_type.kept_bits is None:
        return np.array(arrays["x.weight"].astype(mx.float32))
    scales, biases = (arrays[f"x.{part}"].astype(mx.float32) for part in ("scales", "biases"))
    unpacked = mx.dequantize(arrays["x.weight"], scales, biases, group_size=GROUP_SIZE, bits=tensor_type.kept_bits)
    return np.array(unpacked)


def agree(name: str, weights: Floats, reference: Floats) -> bool:
    """Whether no weight has moved farther than its type may, of the largest in its group."""
    groups = reference.reshape(-1, GROUP_SIZE)
    largest = np.abs(groups).max(axis=1, keepdims=True)
    return bool((np.abs(weights.reshape(groups.shape) - groups) <= MAY_MOVE.get(name, 0) * largest).all())


@pytest.mark.parametrize("name", BY_NAME)
def test_weights_are_those_of_the_reference(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the type's own tolerance, for each type that is accepted, over several pieces of rows."""
    monkeypatch.setattr(tensors, "_CHUNK_WEIGHTS", 5 * 512)
    blocks = random_blocks(name, (48, 512))
    weights = as_numbers(imported(tmp_path, blocks, OWN_DTYPE.get(name, "float16")), BY_NAME[name])
    assert agree(name, weights, blocks.weights)


@pytest.mark.parametrize("name", ["F32", "Q4_0", "Q5_K", "Q6_K"])
def test_rows_of_heads_are_put_in_order(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head's rows 0, 2, 4, … come first, then 1, 3, 5, …: whole rows, with their scales, also across pieces."""
    monkeypatch.setattr(tensors, "_CHUNK_WEIGHTS", 5 * 256)
    blocks = random_blocks(name, (16, 256))
    weights = as_numbers(imported(tmp_path, blocks, OWN_DTYPE.get(name, "float16"), heads=2), BY_NAME[name])
    in_order = blocks.weights[[0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]]
    assert agree(name, weights, in_order)


def test_the_order_of_other_rows_is_kept() -> None:
    """Only q and k were interleaved."""
    assert row_order(5, 0).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "dtype"), [("F32", "bfloat16"), ("F32", "float16"), ("BF16", "float16"), ("F16", "bfloat16")]
)
def test_numbers_are_rounded_as_mlx_rounds(tmp_path: Path, name: str, dtype: str) -> None:
    """From one floating type to another: to the nearest, ties to even."""
    blocks = random_blocks(name, (8, 64))
    blocks.rows.reshape(-1)[:4] = np.frombuffer(np.float32(1 + 2**-8).tobytes(), np.uint8)  # a tie in bfloat16
    expected = mx.array(blocks.weights).astype(getattr(mx, dtype))
    assert mx.array_equal(imported(tmp_path, blocks, dtype)["x.weight"], expected)


@given(arrays(np.float32, (3, 32), elements=st.floats(-1e4, 1e4, width=32)))
def test_rounding_to_8_bits_moves_weights_little(groups: Floats) -> None:
    """By at most 1/254 of the group's largest weight, and what float16 cannot say of the step."""
    made = rounded(groups)
    weights = made.scales[:, None].astype(np.float32) * made.codes + made.biases[:, None].astype(np.float32)
    largest = np.abs(groups).max(axis=1, keepdims=True)
    assert (np.abs(weights - groups) <= largest * (1 / 254 + HALF) + 128 * 2.0**-24).all()
    assert (weights[groups == 0] == 0).all()


@pytest.mark.parametrize("sign", [-1, 1])
def test_whole_steps_from_the_lowest_code_stay_exact(sign: int) -> None:
    """A Q6_K group whose larger scale has its lowest code: that scale's weights do not move."""
    codes = np.r_[-32, np.arange(-7, 8), np.zeros(16)].astype(np.float32)
    groups = (sign * codes * np.float32(2.0**-7))[None]
    made = rounded(groups)
    assert np.array_equal(made.scales[:, None].astype(np.float32) * made.codes + made.biases[:, None], groups)


@pytest.mark.parametrize(
    ("name", "place", "dtype"),
    [
        ("Q4_K", 0, "float16"),
        ("Q6_K", 208, "float16"),
        ("F16", 0, "float16"),
        ("F16", 0, "bfloat16"),
        ("BF16", 0, "bfloat16"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, name: str, place: int, dtype: str) -> None:
    """NaN for a factor, or for a weight, would be an answer of NaN."""
    blocks = random_blocks(name, (4, 256))
    blocks.rows[2, place : place + 2] = 0xFF
    with pytest.raises(ModelSourceError, match=r"tensor 'blk\.0\.x' has numbers that are not finite"):
        imported(tmp_path, blocks, dtype)


def test_numbers_past_the_range_of_float16_are_refused(tmp_path: Path) -> None:
    """They would be infinite."""
    blocks = Blocks("F32", np.full((2, 32), 1e5, np.float32).view(np.uint8))
    with pytest.raises(ModelSourceError, match="too large for half precision"):
        imported(tmp_path, blocks)


@pytest.mark.parametrize("name", ["Q4_K", "Q6_K", "F16"])
def test_memory_does_not_grow_with_the_tensor(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve pieces take no more than three do."""
    monkeypatch.setattr(tensors, "_CHUNK_WEIGHTS", 1 << 16)
    peaks = []
    for pieces in (3, 3, 12):  # once more at first, for what is imported and cached
        blocks = random_blocks(name, (pieces * 128, 512))
        tracemalloc.start()
        imported_bytes = _peak_of_import(tmp_path, blocks)
        tracemalloc.stop()
        peaks.append(imported_bytes)
    assert peaks[2] <= 1.1 * peaks[1]


def _peak_of_import(folder: Path, blocks: Blocks) -> int:
    source = folder / "tensor.gguf"
    source.write_bytes(blocks.rows.tobytes())
    planned = PlannedTensor(TensorInfo("x", blocks.shape, BY_NAME[blocks.type_name], 0), "x", "weight")
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    write_weights(WeightPlan([planned], "float16"), source, folder / "w.safetensors", lambda done, total: None)
    return tracemalloc.get_traced_memory()[1] - before
