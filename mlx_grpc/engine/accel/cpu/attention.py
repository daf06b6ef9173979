"""Puts attention in C in the place of MLX's, for a network on a CPU.

Only for what it knows: float32, and queries that see all keys, or those before them, or those of their row alone.
Whatever else a model asks for is still computed by mlx_lm's own function, so that no model gets anything wrong.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module
from mlx_lm.models import base

from mlx_grpc.engine.accel.cpu.attention_kernel import SIZES_OF, Attention, load_attention
from mlx_grpc.engine.accel.cpu.blas import product_threads
from mlx_grpc.engine.batch.caches.plain import RowsKVCache
from mlx_grpc.engine.batch.caches.window import RowsWindowCache

LEAST_SCORES = 1000
"""Of each head, of all rows. Fewer are left to MLX: ours has to have its queries, so that each layer is computed before
the next one is asked for, which costs a step of a single row with a short context 2 ms of 57."""
_NAME = "scaled_dot_product_attention"


def use_own_attention(network: Module) -> str:
    """Let the modules that the network's layers come from call ours. Returns why not, in one line, or nothing.

    mlx_lm's models import the function by name, so each module has a name of its own for it.
    """
    if sys.platform != "linux":
        return ""
    try:
        own = CpuAttention(load_attention())
    except (OSError, subprocess.SubprocessError) as error:
        return f"attention stays MLX's, which is many times slower on a CPU: {' '.join(str(error).split())}"
    names = {type(layer).__module__ for layer in network.modules()}  # type: ignore[no-untyped-call]
    for module in filter(None, map(sys.modules.get, names)):
        if getattr(module, _NAME, None) is base.scaled_dot_product_attention:
            setattr(module, _NAME, own)
    return ""


class CpuAttention:
    """What models call. It computes at once what it is given: inside of `mx.compile` it cannot be used."""

    def __init__(self, attention: Attention, least_scores: int = LEAST_SCORES) -> None:
        self._attention = attention
        self._least_scores = least_scores

    def __call__(
        self,
        queries: mx.array,
        keys: Any,
        values: Any,
        cache: Any,
        scale: float,
        mask: Any,
        sinks: mx.array | None = None,
    ) -> mx.array:
        """[rows, heads, length, size], as mlx_lm's function of this name, which has the same arguments."""
        if sinks is None and _is_known(queries, keys, values) and self._is_much(queries, keys):
            starts = _starts(queries, keys, cache, mask)
            if starts is not None:
                mx.eval(queries, keys, values)
                # Views of MLX's own memory. None may outlive this call: the cache is written in place only while nobody
                # else holds it.
                arrays = np.asarray(queries), np.asarray(keys), np.asarray(values)
                if all(array.strides[-1] == array.itemsize for array in arrays):
                    threads = product_threads()
                    out = self._attention(*arrays, starts, scale, causal=mask is not None, threads=threads)
                    return mx.array(out).swapaxes(1, 2)
        result: mx.array = base.scaled_dot_product_attention(
            queries, keys, values, cache=cache, scale=scale, mask=mask, sinks=sinks
        )
        return result

    def _is_much(self, queries: mx.array, keys: mx.array) -> bool:
        return queries.shape[0] * queries.shape[2] * keys.shape[2] >= self._least_scores


def _is_known(queries: mx.array, keys: Any, values: Any) -> bool:
    """Whether the arrays are such as ours is for. A quantised cache gives tuples."""
    return (
        isinstance(keys, mx.array)
        and isinstance(values, mx.array)
        and queries.dtype == keys.dtype == values.dtype == mx.float32
        and queries.ndim == keys.ndim == 4
        and keys.shape == values.shape
        and queries.shape[0] == keys.shape[0]
        and queries.shape[1] % keys.shape[1] == 0
        and 0 < queries.shape[2] <= keys.shape[2]
        and queries.shape[3] == keys.shape[3]
        and keys.shape[3] % SIZES_OF == 0
    )


def _starts(queries: mx.array, keys: mx.array, cache: Any, mask: Any) -> list[int] | None:
    """Each row's first key that is seen, or None for a mask that says more than that and what is causal."""
    if mask is None or (isinstance(mask, str) and mask == "causal"):
        return [0] * queries.shape[0]
    paddings = cache.paddings_of(mask) if isinstance(cache, RowsKVCache | RowsWindowCache) else None
    if paddings is None or mask.shape[-2:] != (queries.shape[2], keys.shape[2]):
        return None
    return paddings
