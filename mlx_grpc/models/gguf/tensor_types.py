"""ggml's tensor types: the size of their blocks, and as what the import keeps them."""

from __future__ import annotations

from dataclasses import dataclass

GROUP_SIZE = 32
"""Weights that share a scale and a bias in what the import writes: the size of the blocks of most types."""


@dataclass(frozen=True, slots=True)
class TensorType:
    """A type that can be imported. Quantised ones become `kept_bits` wide in MLX's affine quantisation, others None."""

    name: str
    block_values: int
    block_bytes: int
    kept_bits: int | None = None


# By ggml's number for it. Most fit MLX's groups as they are: the tables of IQ4_NL and IQ4_XS hold whole numbers of 8
# bits. Q2_K, Q3_K and Q6_K have a scale for each 16 weights, which MLX has not: they are rounded to 8 bits, which adds
# little to their own error.
TENSOR_TYPES = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    30: TensorType("BF16", 1, 2),
    2: TensorType("Q4_0", 32, 18, 4),
    3: TensorType("Q4_1", 32, 20, 4),
    6: TensorType("Q5_0", 32, 22, 5),
    7: TensorType("Q5_1", 32, 24, 5),
    8: TensorType("Q8_0", 32, 34, 8),
    10: TensorType("Q2_K", 256, 84, 8),
    11: TensorType("Q3_K", 256, 110, 8),
    12: TensorType("Q4_K", 256, 144, 4),
    13: TensorType("Q5_K", 256, 176, 5),
    14: TensorType("Q6_K", 256, 210, 8),
    20: TensorType("IQ4_NL", 32, 18, 8),
    23: TensorType("IQ4_XS", 256, 136, 8),
}

# At 8 bits the types of 1 to 3 bits would take several times the memory that people choose them for; the others are
# in no file of these families that llama.cpp writes.
_REFUSED = {
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S", 24: "I8",
    25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
    41: "Q1_0",
}  # fmt: skip


def refused_name(type_number: int) -> str:
    """What to call a type that cannot be imported."""
    return _REFUSED.get(type_number, f"ggml type {type_number}")


def accepted_names() -> str:
    """All that can be imported, for messages."""
    return ", ".join(tensor_type.name for tensor_type in TENSOR_TYPES.values())
