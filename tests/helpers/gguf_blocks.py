"""Random tensors of all types of a GGUF file, with the values that the package `gguf` gives them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize, quant_shape_from_byte_shape, quantize
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# Where a block has its float16 factors, in the types that the package reads but does not write. All its other bytes
# may be anything.
_FACTORS = {
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "IQ4_XS": (0,),
}  # fmt: skip
# What the other numbers multiply these by, about: so that weights come out near 1.
_LARGEST = {"Q2_K": 24, "Q3_K": 64, "Q4_K": 480, "Q5_K": 960, "Q6_K": 2048, "IQ4_NL": 64, "IQ4_XS": 1024}


@dataclass(frozen=True)
class Blocks:
    """A tensor as it stands in a file. rows: [rows, bytes]."""

    type_name: str
    rows: Bytes

    @property
    def _type(self) -> GGMLQuantizationType:
        return GGMLQuantizationType[self.type_name]

    @property
    def shape(self) -> tuple[int, ...]:
        """In values, the fastest dimension last."""
        return quant_shape_from_byte_shape(self.rows.shape, self._type)

    @property
    def weights(self) -> Floats:
        """The reference: [rows, columns]."""
        return dequantize(self.rows, self._type).astype(np.float32)


def random_blocks(type_name: str, shape: tuple[int, int], seed: int = 0, size: float = 1.0) -> Blocks:
    """Random weights of about `size`. shape: rows and columns."""
    random = np.random.default_rng(seed)
    kind = GGMLQuantizationType[type_name]
    if type_name not in _FACTORS:
        weights = (random.standard_normal(shape) * size).astype(np.float32)
        return Blocks(type_name, np.ascontiguousarray(quantize(weights, kind)).view(np.uint8))
    values, block_bytes = GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (shape[0] * shape[1] // values, block_bytes), dtype=np.uint8)
    for place in _FACTORS[type_name]:
        factors = random.uniform(0.5, 2, (len(blocks), 1)) * size / _LARGEST[type_name]
        blocks[:, place : place + 2] = factors.astype("<f2").view(np.uint8)
    return Blocks(type_name, blocks.reshape(shape[0], -1))
