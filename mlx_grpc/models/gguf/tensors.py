"""From a GGUF file's tensors to the file of weights, a few rows at a time: a model may be larger than the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_grpc.models.gguf.blocks import Bytes, groups_of
from mlx_grpc.models.gguf.layout import PlannedTensor, WeightPlan
from mlx_grpc.models.gguf.weights_file import WeightsFile
from mlx_grpc.models.sources import ModelSourceError

_CHUNK_WEIGHTS = 1 << 20  # at a time: what is made of them fits a processor's cache


def write_weights(plan: WeightPlan, gguf: Path, destination: Path, on_bytes: Callable[[int, int], None]) -> None:
    """Writes all tensors of the plan from the file `gguf` to the safetensors file `destination`.

    `on_bytes(done, total)` is called after each tensor, with bytes of `gguf`. Raises ModelSourceError for numbers that
    are not finite in the type that the plan gives them, and OSError.
    """
    with WeightsFile(destination, plan.arrays()) as file, np.errstate(all="ignore"):
        done, total = 0, sum(tensor.source.size_bytes for tensor in plan.tensors)
        for tensor in plan.tensors:
            for part, rows in _converted(tensor, plan.dtype, gguf):
                file.append(f"{tensor.layer}.{part}", rows)
            done += tensor.source.size_bytes
            on_bytes(done, total)


def packed(codes: Bytes, bits: int) -> NDArray[np.uint32]:
    """Packs codes, [rows, columns], as MLX does: eight after another in `bits` bytes, the first one lowest."""
    if bits == 8:
        return codes.view("<u4")
    if bits == 4:  # most of most models
        return (codes[:, 0::2] | codes[:, 1::2] << 4).view("<u4")
    words: NDArray[Any] = codes.reshape(-1)
    for half in (8, 16, 32):  # pairs move together, then pairs of these, and theirs
        words = words.view(f"<u{half // 4}")
        upper = words >> half << half // 8 * bits
        words = words & (1 << half) - 1 | upper
    used = words[:, None].view(np.uint8)[:, :bits]
    return np.ascontiguousarray(used).reshape(len(codes), -1).view("<u4")


def row_order(rows: int, interleaved_heads: int) -> NDArray[np.intp]:
    """Which row of the file comes at each place.

    llama.cpp's converter splits the rows of each head of q and k into two halves and interleaves them (rows 0, n/2, 1,
    n/2+1, …), since its rope turns neighbours; MLX's turns row i with row i + n/2.
    """
    order = np.arange(rows)
    if not interleaved_heads:
        return order
    return order.reshape(interleaved_heads, -1, 2).swapaxes(1, 2).ravel()


def _converted(tensor: PlannedTensor, dtype: str, gguf: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """The tensor's arrays by the last part of their names, some rows at a time."""
    source = tensor.source
    # A vector has one value for each output: rows of one.
    rows, columns = source.shape if len(source.shape) == 2 else (source.shape[0], 1)
    shape = rows, columns // source.type.block_values * source.type.block_bytes
    file_rows: Bytes = np.memmap(gguf, np.uint8, "r", source.start_bytes, shape)
    order = row_order(rows, tensor.interleaved_heads)
    step = max(1, _CHUNK_WEIGHTS // columns)
    for first in range(0, rows, step):
        some = file_rows[order[first : first + step]]
        if source.type.kept_bits is None:
            yield tensor.kind, _finite(_in_type(_numbers(some, source.type.name, tensor.plus), dtype), tensor, gguf)
            continue
        groups = groups_of(source.type, some)
        yield tensor.kind, packed(groups.codes.reshape(len(some), columns), source.type.kept_bits)
        yield "scales", _finite(_in_type(groups.scales, dtype), tensor, gguf)
        yield "biases", _finite(_in_type(groups.biases, dtype), tensor, gguf)


def _numbers(rows: Bytes, type_name: str, plus: float) -> NDArray[Any]:
    """Unquantised rows, without what llama.cpp has added to them."""
    if type_name == "BF16":
        numbers: NDArray[Any] = (rows.view("<u2").astype("<u4") << 16).view("<f4")
    else:
        numbers = rows.view({"F32": "<f4", "F16": "<f2"}[type_name])
    return numbers.astype("<f4") - np.float32(plus) if plus else numbers


def _in_type(numbers: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Numbers in another type. numpy has no bfloat16: that is a float32's upper half, rounded to even."""
    if dtype != "bfloat16":
        return numbers.astype(dtype)
    bits = np.where(np.isfinite(numbers), numbers.astype("<f4").view("<u4"), np.uint32(0x7F800000))
    halves: NDArray[np.uint16] = (bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype("<u2")
    return halves


def _finite(numbers: NDArray[Any], tensor: PlannedTensor, gguf: Path) -> NDArray[Any]:
    # bfloat16 comes as whole numbers: its exponent is all ones where it is not finite.
    if (np.isfinite(numbers) if numbers.dtype.kind == "f" else numbers & 0x7F80 != 0x7F80).all():
        return numbers
    raise ModelSourceError(
        f"{gguf}: tensor {tensor.source.name!r} has numbers that are not finite, or too large for half precision; "
        "download it again"
    )
