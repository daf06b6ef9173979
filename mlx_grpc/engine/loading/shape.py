"""What a network's logits and caches look like, seen from one token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx_lm.models.cache import RotatingKVCache, make_prompt_cache

STATE_TOKENS = 1024
"""A recurrent layer's state has one size for any length; it is charged to the tokens of a row of this many."""


@dataclass(frozen=True, slots=True)
class Shape:
    """`window_tokens`: the longest sliding window of its caches; 0 without one."""

    vocab_size: int
    dtype: str
    kv_bytes_per_token: int
    window_tokens: int


def measure(network: Module) -> Shape:
    """Run one token through the network, and look at its logits and caches."""
    caches = make_prompt_cache(network)
    logits = network(mx.zeros((1, 1), dtype=mx.int32), cache=caches)
    mx.eval(logits, [cache.state for cache in caches])
    parts = _parts(caches)
    return Shape(
        vocab_size=logits.shape[-1],
        dtype=str(logits.dtype).removeprefix("mlx.core."),
        kv_bytes_per_token=math.ceil(sum(map(_bytes_per_token, parts))),
        window_tokens=max((part.max_size for part in parts if isinstance(part, RotatingKVCache)), default=0),
    )


def _parts(caches: Sequence[Any]) -> list[Any]:
    """A model's caches, those inside of lists of caches too."""
    parts: list[Any] = []
    for cache in caches:
        parts += _parts(cache.caches) if hasattr(cache, "caches") else [cache]
    return parts


def _bytes_per_token(cache: Any) -> float:
    """What a token takes in this cache. Keys and values hold [batch, heads, length, size], allocated in
    steps; a window that rotates is charged as if it grew, which is right up to its size."""
    keys = getattr(cache, "keys", None)
    if keys is not None:
        return float((keys.nbytes + cache.values.nbytes) / keys.shape[2])
    return float(cache.nbytes / STATE_TOKENS)
