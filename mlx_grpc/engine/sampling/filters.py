"""Which tokens a row may draw: top-p, min-p and top-k for rows that each have their own, all in one graph.

Sorting the vocabulary is what costs on a CPU, and top-p is said to need it. It needs less: the one score at which the
running sum reaches top_p. That score is looked for as quickselect does: part the tokens into a better and a worse
half, ask by the better half's mass which of them holds the border, and go on in that one. The work is the same for
every distribution, and the answer a sort's. On a GPU parting costs as much as sorting, so there it sorts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx

from mlx_grpc.engine.sampling.draw import BLOCK_TOKENS, exp, in_blocks, on_cpu

PAGE_TOKENS = 1024


@dataclass(frozen=True)
class Filters:
    """The settings of the rows that draw. Lists have one entry a row; neutral: top_p 1, min_p 0, top_k 0."""

    top_p: list[float]
    min_p: list[float]
    top_k: list[int]


class FilterPlan:
    """`Filters` as arrays, built once for as long as the rows stay the same. Arrays are [rows, 1]."""

    def __init__(self, filters: Filters, vocab_size: int) -> None:
        self.uses_top_p = any(p < 1.0 for p in filters.top_p)
        # A target that no sum reaches: nothing is dropped.
        self.top_p = mx.array([p if p < 1.0 else math.inf for p in filters.top_p])[:, None]
        self.log_min_p = mx.array([math.log(p) if p > 0 else -math.inf for p in filters.min_p])[:, None]
        limited = [k for k in filters.top_k if 0 < k < vocab_size]
        self.largest_k = max(limited, default=0)
        self.all_use_top_k = len(limited) == len(filters.top_k)
        self.top_k = mx.array([k if 0 < k < vocab_size else vocab_size for k in filters.top_k])[:, None]


def weights(
    scores: mx.array, best: mx.array, inverse_temperature: mx.array | None, plan: FilterPlan | None
) -> mx.array:
    """What `draw` takes: exp((scores - best) / temperature) for the tokens kept, else 0. [rows, vocab] float32

    scores: [rows, vocab] float32. best: [rows, 1], each row's largest. inverse_temperature: [rows, 1], None if all 1.
    """
    offset = scores - best
    result = exp(offset if inverse_temperature is None else offset * inverse_temperature)
    if plan is None:
        return result
    likelihood = exp(offset) if plan.uses_top_p and inverse_temperature is not None else result
    return result * kept(scores, best, likelihood, plan)


def kept(scores: mx.array, best: mx.array, likelihood: mx.array, plan: FilterPlan) -> mx.array:
    """The tokens each row may draw, as a [rows, vocab] bool.

    As mlx_lm's apply_top_p, apply_min_p and apply_top_k one after another: each keeps a head of the row's scores in
    falling order, so together they keep the shortest. Equal scores at top-p's border are all kept, at top-k's from the
    lowest id up, where argpartition leaves the choice open. likelihood: exp(scores - best), read for top-p alone.
    """
    chosen = scores >= best + plan.log_min_p
    head = _head(scores, plan.largest_k) if plan.largest_k else None
    if head is not None:
        chosen = chosen & _among_top_k(scores, head, plan.top_k)
    if plan.uses_top_p:
        target = plan.top_p * _sum(likelihood)
        if head is not None and plan.all_use_top_k:
            least = _nucleus_least(exp(head - best), mx.zeros_like(target), target)
        else:
            page, above = _page_of_border(likelihood, target)
            least = _nucleus_least(mx.sort(page, axis=-1), above, target)
        chosen = chosen & (likelihood >= least)
    return chosen


def _nucleus_least(rising: mx.array, above: mx.array, target: mx.array) -> mx.array:
    """The least likelihood in each row's nucleus: the fewest best tokens whose sum reaches `target`. [rows, 1]

    rising: [rows, any], likelihoods sorted, the nucleus' border among them. above: [rows, 1], the sum of those that are
    likelier than they. All are in the nucleus if `target` is not reached."""
    blocks = in_blocks(rising)
    inside = mx.cumsum(blocks, axis=-1, reverse=True, inclusive=False)
    outside = mx.cumsum(blocks.sum(-1, keepdims=True), axis=1, reverse=True, inclusive=False)
    rising, above = blocks.flatten(1), above + (outside + inside).flatten(1)
    dropped = (above >= target).sum(-1, keepdims=True)
    # The likeliest is kept also where the target is 0.
    return mx.take_along_axis(rising, mx.minimum(dropped, rising.shape[-1] - 1), axis=-1)


def _page_of_border(likelihood: mx.array, target: mx.array) -> tuple[mx.array, mx.array]:
    """Neighbours in rank among which the running sum reaches `target`, in no order, and the sum of what is likelier
    than they; the last ones where it is never reached. On a CPU about PAGE_TOKENS of them, on a GPU all.
    [rows, page], [rows, 1]"""
    halvings = max(0, math.ceil(math.log2(likelihood.shape[-1] / PAGE_TOKENS))) if on_cpu() else 0
    likelihood = in_blocks(likelihood, BLOCK_TOKENS * 2**halvings).flatten(1)
    above = mx.zeros_like(target)
    for _ in range(halvings):
        half = likelihood.shape[-1] // 2
        parted = mx.partition(likelihood, half, axis=-1)
        worse, better = parted[:, :half], parted[:, half:]
        reached = above + _sum(better)
        in_better = reached >= target
        above = mx.where(in_better, above, reached)
        # Not `where`, which takes MLX's CPU backend ten times as long as a product and as exact a sum with zero.
        share = in_better.astype(mx.float32)
        likelihood = better * share + worse * (1.0 - share)
    return likelihood, above


def _sum(values: mx.array) -> mx.array:
    return in_blocks(values).sum(-1).sum(-1, keepdims=True)


def _head(scores: mx.array, size: int) -> mx.array:
    """The `size` best scores of each row in rising order."""
    first = scores.shape[-1] - size
    if not on_cpu():
        return mx.sort(scores, axis=-1)[:, first:]
    return mx.sort(mx.partition(scores, first, axis=-1)[:, first:], axis=-1)


def _among_top_k(scores: mx.array, head: mx.array, top_k: mx.array) -> mx.array:
    """The top_k best tokens of each row, [rows, vocab] bool. head: [rows, any], rising; all are kept if top_k is more
    than that."""
    size = head.shape[-1]
    border = mx.take_along_axis(head, mx.maximum(size - top_k, 0), axis=-1)
    border = mx.where(top_k > size, -math.inf, border)
    better = (head > border).sum(-1, keepdims=True)
    equal = scores == border
    return (scores > border) | (equal & (mx.cumsum(equal, axis=-1) <= top_k - better))
