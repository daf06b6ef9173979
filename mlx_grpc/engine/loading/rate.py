"""How long steps take, measured once at load: a prompt's first chunk has to be bounded before any was seen."""

from __future__ import annotations

import time

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx_lm.models.cache import make_prompt_cache

from mlx_grpc.engine.batch.pace import Rate

RATE_TOKENS = (1, 16, 64, 256)
RATE_SECONDS = 0.05
"""The rate is measured with more tokens while a chunk takes no longer."""


def measured_rate(network: Module) -> Rate:
    """How long steps take, from one token and from as many as are quick. Each is computed twice: the first time may
    compile."""
    taken = []
    for tokens in RATE_TOKENS:
        seconds = min(_chunk_seconds(network, tokens) for _ in range(2))
        taken.append((tokens, seconds))
        if seconds > RATE_SECONDS:
            break
    (few, few_seconds), (many, many_seconds) = taken[0], taken[-1]
    if many == few:
        return Rate(0.0, few_seconds)
    per_token = max(0.0, many_seconds - few_seconds) / (many - few)
    return Rate(max(0.0, few_seconds - per_token), per_token)


def _chunk_seconds(network: Module, tokens: int) -> float:
    caches = make_prompt_cache(network)
    began_seconds = time.monotonic()
    mx.eval(network(mx.zeros((1, tokens), dtype=mx.int32), cache=caches), [cache.state for cache in caches])
    return time.monotonic() - began_seconds
