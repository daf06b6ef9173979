"""The ways of computing several rows that a test at load tries, and one row by itself, with the batch's own means."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx_lm.models.cache import make_prompt_cache

from mlx_grpc.engine.batch.caches.shared import SharedArrays
from mlx_grpc.engine.batch.decoding import DecodeBatch
from mlx_grpc.engine.batch.generator import Batching
from mlx_grpc.engine.batch.prompts import PromptBatch, PromptRow
from mlx_grpc.engine.sampling.sampler import BatchSampler


@dataclass(frozen=True, slots=True)
class Way:
    """One way of computing several rows."""

    batching: Batching
    grouped_masks: bool = False

    def __str__(self) -> str:
        return f"{self.batching.value}{' with grouped masks' if self.grouped_masks else ''}"


ALONE = Way(Batching.ALONE)
WAYS = (
    Way(Batching.PADDED),
    Way(Batching.PADDED, grouped_masks=True),
    Way(Batching.ALIGNED),
    Way(Batching.ALIGNED, grouped_masks=True),
    ALONE,
)
"""In the order of preference."""


def alone(network: Module, prompt: list[int], forced: list[int]) -> list[mx.array]:
    """Logits [vocab] after the prompt and after each of the forced tokens, as `generate_step` comes to them."""
    caches = make_prompt_cache(network)
    network(mx.array([prompt[:-1]]), cache=caches)
    logits = []
    for token in (prompt[-1], *forced):
        logits.append(network(mx.array([[token]]), cache=caches)[0, -1])
        mx.eval(logits[-1])
    return logits


def together(network: Module, prompts: list[list[int]], forced: list[list[int]], way: Way) -> list[list[mx.array]]:
    """The same of several rows at once, by the batch's own means. Prompts come by length; all but the longest end
    in the middle of a chunk."""
    rows = [PromptRow(i, row[:-1], row[-1], len(row), make_prompt_cache(network)) for i, row in enumerate(prompts)]
    chunk = max(1, min(len(prompts[0]) // 2, len(prompts[1]) + 2))
    tokens = dict(enumerate(forced))
    shared = None if way.batching is Batching.ALONE else SharedArrays(grouped_masks=way.grouped_masks)
    groups = [rows] if way.batching is Batching.PADDED else [[row] for row in rows]
    ready = [_processed(network, group, shared, chunk) for group in groups]
    if shared is None:
        found = {row_id: logits for batches in ready for row_id, logits in _decoded(network, batches, tokens).items()}
    else:
        found = _decoded(network, [batch for batches in ready for batch in batches], tokens)
    return [found[row_id] for row_id in tokens]


def _processed(network: Module, rows: list[PromptRow], shared: SharedArrays | None, chunk: int) -> list[PromptBatch]:
    """Prefill by chunks; rows leave as they are done."""
    batch = PromptBatch(network, [], shared)
    batch.admit(rows)
    ready = []
    while batch.rows:
        if (done := batch.take_done()) is not None:
            ready.append(done)
        else:
            batch.process(chunk)
    return ready


def _decoded(network: Module, ready: list[PromptBatch], forced: dict[int, list[int]]) -> dict[int, list[mx.array]]:
    """Each row's logits of each step. `forced`: the tokens that the rows are fed, after their prompts."""
    batch = DecodeBatch(network, BatchSampler(1), mergeable=len(ready) > 1)
    batch.join(ready)
    logits: dict[int, list[mx.array]] = {row_id: [] for row_id in batch.row_ids}
    tokens = batch.upcoming().tokens
    for step in range(len(forced[batch.row_ids[0]]) + 1):
        if step:
            tokens = mx.array([forced[row_id][step - 1] for row_id in batch.row_ids], dtype=mx.uint32)
        out = batch.forward(tokens)
        mx.eval(out)
        for place, row_id in enumerate(batch.row_ids):
            logits[row_id].append(out[place])
    return logits
