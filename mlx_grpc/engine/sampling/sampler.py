"""One sampler for the whole batch: every row with its own settings, all rows in one graph.

Order, as in mlx_lm: bias, repetition, presence and frequency penalties on the logits; then top-p, min-p, top-k;
temperature last. Nothing here waits for the accelerator, so steps can be built while the one before still runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import mlx.core as mx

from mlx_grpc.engine.messages import Row
from mlx_grpc.engine.sampling.check import check
from mlx_grpc.engine.sampling.groups import draw_groups
from mlx_grpc.engine.sampling.logits import Bias, Histories, RowState, penalised, without_early_stops

RowLogprobs = tuple[mx.array, mx.array, mx.array]


@dataclass(frozen=True)
class Sampled:
    """One step's tokens, not computed yet. tokens: [rows] uint32. finite: [rows] bool, whether the row's logits are
    finite: none is NaN or positive infinity, and not all are negative infinity. logprobs: for each row None, or the
    chosen token's log-probability [], the likeliest ids [n] best first, and their log-probabilities [n], float32.

    Log-probabilities are the model's after bias and penalties, before top-p, min-p, top-k and temperature, as mlx_lm
    reports them."""

    tokens: mx.array
    finite: mx.array
    logprobs: list[RowLogprobs | None]

    def arrays(self) -> list[mx.array]:
        """All that is to be computed, for one async_eval."""
        return [self.tokens, self.finite, *(array for row in self.logprobs if row is not None for array in row)]


class _Plan:
    """What follows from which rows are in the batch, in which order: made when that changes, used every step."""

    def __init__(self, states: list[RowState], vocab_size: int) -> None:
        self.states = states
        self.bias = Bias(states)
        self.penalised = [i for i, state in enumerate(states) if state.has_penalties]
        self.penalised_index = mx.array(self.penalised, dtype=mx.int32)
        self.reported = [i for i, state in enumerate(states) if state.row.top_logprobs >= 0]
        self.groups = draw_groups(states, vocab_size)


class BatchSampler:
    """Samples for all rows of a batch. The batch adds a row before its first call and removes it after its last."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._states: dict[int, RowState] = {}
        self._histories = Histories()
        self._plan_key: tuple[int, ...] = ()
        self._plan: _Plan | None = None

    def add(self, row: Row) -> None:
        """Take a row in. Raises ValueError, in one line, for settings that cannot be sampled."""
        if row.row_id in self._states:
            raise ValueError(f"row {row.row_id} is in the batch already")
        check(row, self._vocab_size)
        self._states[row.row_id] = RowState(row, position=len(row.output))

    def remove(self, row_ids: Iterable[int]) -> None:
        """Forget rows. Unknown ids are ignored."""
        for row_id in row_ids:
            self._states.pop(row_id, None)
        self._plan, self._plan_key = None, ()

    def sample(self, logits: mx.array, row_ids: list[int], inputs: mx.array) -> Sampled:
        """One token for each of `row_ids`. logits: [rows, vocab], any float type. inputs: [rows], the tokens just fed
        to the model; it may still be computing. Raises KeyError for a row that was not added."""
        plan = self._planned(row_ids)
        processed = self._processed(logits, plan, inputs)
        greedy = mx.argmax(processed, axis=-1)
        tokens = greedy
        if plan.groups:
            scores = processed.astype(mx.float32)
            for group in plan.groups:
                tokens = group.tokens(scores, tokens)
        logprobs = _logprobs(processed, tokens, plan)
        for state in plan.states:
            state.position += 1
        return Sampled(tokens, _finite(processed, greedy), logprobs)

    def _planned(self, row_ids: list[int]) -> _Plan:
        key = tuple(row_ids)
        if self._plan is None or key != self._plan_key:
            self._plan = _Plan([self._states[row_id] for row_id in row_ids], self._vocab_size)
            self._plan_key = key
        return self._plan

    def _processed(self, logits: mx.array, plan: _Plan, inputs: mx.array) -> mx.array:
        if plan.bias.present:
            logits = plan.bias.added(logits.astype(mx.float32))
        if plan.penalised:
            states = [plan.states[i] for i in plan.penalised]
            history = self._histories.extended(states, inputs[plan.penalised_index])
            logits = penalised(logits.astype(mx.float32), plan.penalised_index, states, history)
        return without_early_stops(logits, plan.states)


def _finite(logits: mx.array, greedy: mx.array) -> mx.array:
    """[rows] bool. On a CPU argmax takes NaN for the largest, so that its value tells; a pass of its own over all
    logits would cost a CPU 1.6 % of a step. On a GPU argmax promises nothing, and the pass costs nothing."""
    if mx.default_device().type == mx.DeviceType.gpu:
        return mx.isfinite(mx.max(logits, axis=-1))
    return mx.isfinite(mx.take_along_axis(logits, greedy[:, None], axis=-1).squeeze(-1))


def _logprobs(logits: mx.array, tokens: mx.array, plan: _Plan) -> list[RowLogprobs | None]:
    result: list[RowLogprobs | None] = [None] * len(plan.states)
    if not plan.reported:
        return result
    index = mx.array(plan.reported)
    scores = logits[index].astype(mx.float32)
    normal = mx.logsumexp(scores, axis=-1, keepdims=True)
    chosen = (mx.take_along_axis(scores, tokens[index][:, None], axis=-1) - normal).squeeze(-1)
    most = min(max(plan.states[i].row.top_logprobs for i in plan.reported), scores.shape[-1])
    top_ids = _top_ids(scores, most)
    top = mx.take_along_axis(scores, top_ids, axis=-1) - normal
    for n, i in enumerate(plan.reported):
        count = min(plan.states[i].row.top_logprobs, most)
        result[i] = (chosen[n], top_ids[n, :count], top[n, :count])
    return result


def _top_ids(scores: mx.array, count: int) -> mx.array:
    if count == 0:
        return mx.zeros((scores.shape[0], 0), dtype=mx.uint32)
    candidates = mx.argpartition(-scores, kth=count - 1, axis=-1)[:, :count]
    order = mx.argsort(-mx.take_along_axis(scores, candidates, axis=-1), axis=-1)
    return mx.take_along_axis(candidates, order, axis=-1)
