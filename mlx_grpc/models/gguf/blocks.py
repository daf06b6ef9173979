"""Decodes ggml's quantised blocks into groups of 32 weights: whole numbers, a scale and a bias, as MLX packs them.

A weight is scale · code + bias. For most types that is what the block itself says; the others are decoded by the
package `gguf` and rounded to 8 bits. Layouts are those of ggml's `ggml-common.h`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlx_grpc.models.gguf.tensor_types import GROUP_SIZE, TensorType

Bytes = NDArray[np.uint8]
Halves = NDArray[np.float16]
Floats = NDArray[np.float32]

_FIFTH_BIT = np.uint8(4)
_SIGN_BIT = np.uint8(0x80)


@dataclass(frozen=True, slots=True)
class Groups:
    """codes: [groups, 32]; scales and biases: [groups]."""

    codes: Bytes
    scales: Halves
    biases: Halves


def groups_of(tensor_type: TensorType, rows: Bytes) -> Groups:
    """Decodes whole rows, [rows, bytes], of a quantised type: the groups of each row, one after another."""
    if decode := _FITTING.get(tensor_type.name):
        return decode(rows.reshape(-1, tensor_type.block_bytes))
    # Imported here, because most files need nothing of it.
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    return rounded(dequantize(rows, GGMLQuantizationType[tensor_type.name]).reshape(-1, GROUP_SIZE))


def rounded(weights: Floats) -> Groups:
    """Rounds groups, [groups, 32], to 8 bits around zero, by at most 1/254 of each group's largest weight.

    The largest gets the code 0, at the end that has one code more than the other, or as near to it as the largest of
    the other sign lets it. In the types with two scales to a group that is the lowest code of the larger scale as a
    rule, and then all weights of that scale stay exact.
    """
    lowest, highest = weights.min(axis=1), weights.max(axis=1)
    flipped = highest > -lowest
    largest, opposite = np.where(flipped, highest, -lowest), np.where(flipped, -lowest, highest)
    steps = np.maximum(largest / 128, opposite / 127)
    scales = np.where(flipped, -steps, steps).astype(np.float16)
    divisors = np.where(scales == 0, np.float32(1), scales.astype(np.float32))
    codes = np.rint(weights / divisors[:, None]) + 128
    return Groups(codes.clip(0, 255).astype(np.uint8), scales, scales * np.float16(-128))


def _q4_0(blocks: Bytes) -> Groups:
    scales = _half(blocks, 0)
    return Groups(_low_then_high(blocks[:, 2:]), scales, scales * np.float16(-8))


def _q4_1(blocks: Bytes) -> Groups:
    return Groups(_low_then_high(blocks[:, 4:]), _half(blocks, 0), _half(blocks, 2))


def _q5_0(blocks: Bytes) -> Groups:
    scales = _half(blocks, 0)
    codes = _low_then_high(blocks[:, 6:]) | np.unpackbits(blocks[:, 2:6], axis=1, bitorder="little") << _FIFTH_BIT
    return Groups(codes, scales, scales * np.float16(-16))


def _q5_1(blocks: Bytes) -> Groups:
    codes = _low_then_high(blocks[:, 8:]) | np.unpackbits(blocks[:, 4:8], axis=1, bitorder="little") << _FIFTH_BIT
    return Groups(codes, _half(blocks, 0), _half(blocks, 2))


def _q8_0(blocks: Bytes) -> Groups:
    scales = _half(blocks, 0)
    return Groups(blocks[:, 2:] ^ _SIGN_BIT, scales, scales * np.float16(-128))


def _q4_k(blocks: Bytes) -> Groups:
    return Groups(_nibbles_by_group(blocks[:, 16:]).reshape(-1, GROUP_SIZE), *_scales_of_groups(blocks))


def _q5_k(blocks: Bytes) -> Groups:
    # Byte i of the fifth bits has those of weight i of all eight groups, the first group's lowest.
    fifth = blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & np.uint8(1)
    codes = _nibbles_by_group(blocks[:, 48:]) | fifth << _FIFTH_BIT
    return Groups(codes.reshape(-1, GROUP_SIZE), *_scales_of_groups(blocks))


def _iq4_nl(blocks: Bytes) -> Groups:
    scales = _half(blocks, 0)
    return Groups(_from_table(blocks[:, 2:]), scales, scales * np.float16(-128))


def _iq4_xs(blocks: Bytes) -> Groups:
    # Eight scales of 6 bits less 32: four bits of each in four bytes, two of each in two bytes before these.
    low = np.stack([blocks[:, 4:8] & 0xF, blocks[:, 4:8] >> 4], axis=2).reshape(-1, 8)
    high = blocks[:, 2:4, None] >> np.arange(0, 8, 2, dtype=np.uint8) & np.uint8(3)
    whole = (low | high.reshape(-1, 8) << 4).astype(np.float32) - 32
    scales = (_half(blocks, 0).astype(np.float32)[:, None] * whole).astype(np.float16).ravel()
    return Groups(_from_table(blocks[:, 8:].reshape(-1, 16)), scales, scales * np.float16(-128))


_FITTING: dict[str, Callable[[Bytes], Groups]] = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0, "Q4_K": _q4_k, "Q5_K": _q5_k,
    "IQ4_NL": _iq4_nl, "IQ4_XS": _iq4_xs,
}  # fmt: skip


def _half(blocks: Bytes, place: int) -> Halves:
    return np.ascontiguousarray(blocks[:, place : place + 2]).view("<f2")[:, 0]


def _low_then_high(nibbles: Bytes) -> Bytes:
    """16 bytes a block: their low halves are the first 16 codes, their high halves the last."""
    return np.concatenate([nibbles & 0xF, nibbles >> 4], axis=1)


def _from_table(nibbles: Bytes) -> Bytes:
    """What the 16 places of the table of IQ4_NL and IQ4_XS hold, as codes around 128."""
    from gguf.quants import IQ4_NL

    return (np.array(IQ4_NL.kvalues) + 128).astype(np.uint8)[_low_then_high(nibbles)]


def _nibbles_by_group(nibbles: Bytes) -> Bytes:
    """128 bytes a block, 32 for each two groups, low and high: gives [blocks, 8, 32]."""
    pairs = nibbles.reshape(-1, 4, 1, GROUP_SIZE)
    return np.concatenate([pairs & 0xF, pairs >> 4], axis=2).reshape(-1, 8, GROUP_SIZE)


def _scales_of_groups(blocks: Bytes) -> tuple[Halves, Halves]:
    """Scales and biases of the eight groups of each block, from its two halves and twice eight numbers of 6 bits.

    Four bytes hold the scales of the first four groups, four their minima, each with two bits more of one of the last
    four groups at its top; the last four bytes hold the rest of these, scales low and minima high.
    """
    first, second, last = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = np.concatenate([first & 0x3F, last & 0xF | first >> 6 << 4], axis=1)
    minima = np.concatenate([second & 0x3F, last >> 4 | second >> 6 << 4], axis=1)
    step, least = (_half(blocks, place).astype(np.float32)[:, None] for place in (0, 2))
    return (step * scales).astype(np.float16).ravel(), (-least * minima).astype(np.float16).ravel()
