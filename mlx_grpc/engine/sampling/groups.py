"""Rows that draw together: their settings as arrays, and from logits to their tokens."""

from __future__ import annotations

import math

import mlx.core as mx

from mlx_grpc.engine.sampling.draw import draw, uniforms
from mlx_grpc.engine.sampling.filters import FilterPlan, Filters, weights
from mlx_grpc.engine.sampling.logits import RowState


class DrawGroup:
    """Rows of one kind, drawn in one graph."""

    def __init__(self, states: list[RowState], rows: list[int], vocab_size: int) -> None:
        self.states = [states[i] for i in rows]
        self.index = mx.array(rows)
        self.is_whole_batch = len(rows) == len(states)
        settings = [state.row.sampling for state in self.states]
        self.inverse_temperature: mx.array | None = None
        if any(s.temperature != 1.0 for s in settings):
            self.inverse_temperature = mx.array([1.0 / s.temperature for s in settings])[:, None]
        self.filters: FilterPlan | None = None
        if _has_filters(self.states[0], vocab_size):
            # As in mlx_lm, top_p 0 is no filter.
            top_p = [s.top_p if s.top_p > 0 else 1.0 for s in settings]
            filters = Filters(top_p, [s.min_p for s in settings], [s.top_k for s in settings])
            self.filters = FilterPlan(filters, vocab_size)

    def tokens(self, logits: mx.array, greedy: mx.array) -> mx.array:
        """`greedy` [rows of the batch] with this group's rows drawn. logits: [rows of the batch, vocab] float32.

        A row whose logits hold NaN or infinity, or whose tokens are all forbidden, has no distribution and keeps
        its greedy token."""
        scores = logits if self.is_whole_batch else logits[self.index]
        likeliest = greedy if self.is_whole_batch else greedy[self.index]
        best = mx.take_along_axis(scores, likeliest[:, None], axis=-1)
        weight = weights(scores, best, self.inverse_temperature, self.filters)
        uniform = mx.array([uniforms(state.row.sampling.seed, state.position) for state in self.states])
        total = weight.sum(-1)
        drawn = mx.where((total > 0) & (total < math.inf), draw(weight, uniform), likeliest)
        return drawn if self.is_whole_batch else mx.put_along_axis(greedy, self.index, drawn, axis=0)


def _has_filters(state: RowState, vocab_size: int) -> bool:
    settings = state.row.sampling
    return 0 < settings.top_p < 1 or settings.min_p > 0 or 0 < settings.top_k < vocab_size


def draw_groups(states: list[RowState], vocab_size: int) -> list[DrawGroup]:
    """The rows that draw: those without filters, which need not pay for them, those with, and those with top-k.

    The last apart from the others because top-p sums over the best k alone where all rows have a k: in one group, its
    roundings, and so a seeded row's tokens, could hang on the company."""
    kinds: dict[tuple[bool, bool], list[int]] = {}
    for i, state in enumerate(states):
        if state.row.sampling.temperature > 0:
            has_top_k = 0 < state.row.sampling.top_k < vocab_size
            kinds.setdefault((_has_filters(state, vocab_size), has_top_k), []).append(i)
    return [DrawGroup(states, rows, vocab_size) for rows in kinds.values()]
