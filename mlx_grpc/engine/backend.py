"""What each kind of device wants: variables that MLX reads when it is imported, and the pace of an engine's steps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

ENVIRONMENT: Mapping[str, str] = {
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


@dataclass(frozen=True, slots=True)
class Backend:
    """How an engine goes about its work on one kind of device."""

    name: str
    pipelined: bool
    """Whether a step is begun before the last one's tokens are read, so that the device never waits for Python."""
    most_chunk_tokens: int
    """Prompt tokens of a step, at most."""
    gap_seconds: float
    """How long running streams may be held up by others' prompts, between two of their tokens."""
    chunk_seconds: float
    """How long a step's prompts may take while nobody decodes: for so long nobody can enter or be cancelled."""


BACKENDS: Mapping[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend("cpu", pipelined=False, most_chunk_tokens=512, gap_seconds=1.0, chunk_seconds=4.0),
        # An H100 processes 8,192 tokens of a small model in a tenth of a second.
        Backend("cuda", pipelined=True, most_chunk_tokens=8192, gap_seconds=0.1, chunk_seconds=1.0),
        # Nothing was run on a Mac. mlx_lm's own chunk, and a gap that a reader hardly sees.
        Backend("metal", pipelined=True, most_chunk_tokens=2048, gap_seconds=0.25, chunk_seconds=2.0),
    )
}


def set_defaults() -> None:
    """For this process; what an operator has set stays. Without effect once MLX is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
