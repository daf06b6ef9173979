"""Layers of mlx.nn that multiply, as plain arrays and functions: joined, and summed with what is added to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedLinear

Arrays = tuple[mx.array, ...]
"""A layer's weight, and its scales and biases where it is quantised."""

_NAMES = ("weight", "scales", "biases")


@dataclass(frozen=True)
class Product:
    """How layers that are alike multiply. packing: the settings of mx.quantized_matmul, or None."""

    packing: tuple[tuple[str, Any], ...] | None

    @classmethod
    def of(cls, layers: Sequence[Module]) -> Product | None:
        """What all of them do; None where they differ, or are neither Linear nor QuantizedLinear without bias."""
        if not all(map(_is_known, layers)):
            return None
        only, *others = {_packing(layer) for layer in layers}
        return None if others else cls(only)

    def arrays(self, layers: Sequence[Module]) -> Arrays:
        """Those of the layers, joined to one with the outputs of all; the layers keep views of that."""
        joined = tuple(
            mx.concatenate([layer[name] for layer in layers]) if len(layers) > 1 else layers[0][name]
            for name in _NAMES
            if name in layers[0]
        )
        mx.eval(joined)
        first = 0
        for layer in layers:
            end = first + layer["weight"].shape[0]
            for name, array in zip(_NAMES, joined, strict=False):
                layer[name] = array[first:end]
            first = end
        return joined

    def __call__(self, inputs: mx.array, arrays: Arrays) -> mx.array:
        """inputs: [..., width]; gives [..., outputs]."""
        if self.packing is None:
            return inputs @ arrays[0].T
        weight, scales, *biases = arrays
        return mx.quantized_matmul(inputs, weight, scales, biases[0] if biases else None, **dict(self.packing))

    def plus(self, inputs: mx.array, arrays: Arrays, others: mx.array) -> mx.array:
        """others + the product: as one where MLX can. Of a single row its product of matrix and vector is quicker."""
        if self.packing is None and inputs.size > inputs.shape[-1]:
            return mx.addmm(others, inputs, arrays[0].T)
        return others + self(inputs, arrays)


def _is_known(layer: Module) -> bool:
    return type(layer) in (Linear, QuantizedLinear) and "bias" not in layer


def _packing(layer: Module) -> tuple[tuple[str, Any], ...] | None:
    if type(layer) is Linear:
        return None
    return (("group_size", layer.group_size), ("bits", layer.bits), ("mode", layer.mode))
