"""What MLX reads from its environment, set before it is imported; what an operator has set stays."""

from __future__ import annotations

import os
from collections.abc import Mapping

DEFAULTS: Mapping[str, str] = {
    # On CUDA, MLX captures graphs, keyed by what is in them, and a batch whose rows come and go makes new ones all the
    # time. Steps in which nothing changes take the same without them on an H200, since the time goes into preparing
    # launches either way. What a change costs less without them was not told apart from that machine's drift.
    "MLX_USE_CUDA_GRAPHS": "0",
    # cuDNN plans attention anew for each shape of a prefill, for 60 to 700 ms, and in a server prompts seldom have a
    # length that was seen before. Without it a prompt of 4,000 tokens took as long the first time, and one of 200 a
    # third. It keeps all scores in memory: `prefill.tokens_for_scores` bounds those.
    "MLX_CUDA_USE_CUDNN_SDPA": "0",
    # MLX ends the process when its caches of graphs and attention plans have missed twice as often as they are large,
    # however long that took. A server sees new shapes all its life.
    "MLX_ENABLE_CACHE_THRASHING_CHECK": "0",
}


def set_defaults() -> None:
    """For this process; without effect once MLX is imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
