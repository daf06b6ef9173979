"""Rows that decode: one token of each is fed in a step, and one comes out.

A step is a forward pass and then the sampling of all rows' tokens. Its tokens are read when they are needed, which may
be after the next step was begun.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import mlx.core as mx
from mlx.nn.layers.base import Module

from mlx_grpc.engine.batch.caches.rows import Caches, extend, keep, row_of
from mlx_grpc.engine.batch.prompts import PromptBatch
from mlx_grpc.engine.sampling.sampler import BatchSampler, RowLogprobs


@dataclass(frozen=True, slots=True)
class Decoded:
    """A row's new token. logprobs is computed already. Not `finite`: the model's logits were not, and the token means
    nothing."""

    row_id: int
    token: int
    logprobs: RowLogprobs | None
    finite: bool = True


class Upcoming(NamedTuple):
    """Tokens that are being computed. tokens: [rows]; finite: [rows] bool, or None where the tokens are those of
    prompts; unfed: rows whose token is the last of their prompt."""

    row_ids: list[int]
    tokens: mx.array
    finite: mx.array | None
    logprobs: list[RowLogprobs | None]
    unfed: frozenset[int]

    def read(self) -> list[Decoded]:
        """Wait for them."""
        mx.eval(self.tokens, self.finite, [array for row in self.logprobs if row is not None for array in row])
        tokens = cast(list[int], self.tokens.tolist())
        finite = [True] * len(tokens) if self.finite is None else cast(list[bool], self.finite.tolist())
        decoded = map(Decoded, self.row_ids, tokens, self.logprobs, finite)
        return [row for row in decoded if row.row_id not in self.unfed]


class DecodeBatch:
    """The rows, their caches, and the token that each is fed next.

    Rows enter with their last prompt tokens still to be fed, together with the others' next ones: a step of their own
    would cost as much as one of all.
    """

    def __init__(self, model: Module, sampler: BatchSampler, *, mergeable: bool) -> None:
        self.row_ids: list[int] = []
        self.caches: Caches = []
        self._model = model
        self._sampler = sampler
        self._mergeable = mergeable
        self._next_tokens = mx.array([], dtype=mx.uint32)
        self._next_finite: mx.array | None = None
        self._next_logprobs: list[RowLogprobs | None] = []
        self._unfed: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.row_ids)

    def join(self, batches: Sequence[PromptBatch]) -> None:
        """Take rows in whose prompts are processed, after these."""
        rows = [row for batch in batches for row in batch.rows]
        caches = [batch.caches for batch in batches]
        if not self.row_ids:
            self.caches, *caches = caches
        if caches:
            extend(self.caches, caches)
        last = mx.array([row.last for row in rows], dtype=mx.uint32)
        self._next_tokens = mx.concatenate([self._next_tokens, last]) if self.row_ids else last
        if self._next_finite is not None:
            self._next_finite = mx.concatenate([self._next_finite, mx.ones(len(rows), dtype=mx.bool_)])
        self._next_logprobs += [None] * len(rows)
        self.row_ids += [row.row_id for row in rows]
        self._unfed |= {row.row_id for row in rows}

    def upcoming(self) -> Upcoming:
        """The tokens that `start` will feed."""
        return Upcoming(
            list(self.row_ids), self._next_tokens, self._next_finite, list(self._next_logprobs), self._unfed
        )

    def start(self) -> None:
        """Feed them, and begin to compute those that follow."""
        inputs, self._unfed = self._next_tokens, frozenset()
        logits = self.forward(inputs)
        sampled = self._sampler.sample(logits, self.row_ids, inputs)
        self._next_tokens, self._next_finite, self._next_logprobs = sampled.tokens, sampled.finite, sampled.logprobs
        mx.async_eval(sampled.arrays())  # type: ignore[no-untyped-call]

    def forward(self, tokens: mx.array) -> mx.array:
        """Feed one token of each row: [rows]; gives logits: [rows, vocabulary]."""
        logits: mx.array = self._model(tokens[:, None], cache=self.caches)[:, -1, :]
        return logits

    def has_fed(self, row_id: int) -> bool:
        """Whether the row is here, and its caches hold its whole prompt."""
        return row_id in self.row_ids and row_id not in self._unfed

    def row_caches(self, row_id: int) -> Caches:
        """A copy of one row's caches."""
        if not self._mergeable:
            return copy.deepcopy(self.caches)
        return row_of(self.caches, self.row_ids.index(row_id))

    def remove(self, row_ids: Collection[int]) -> None:
        """Drop rows. Unknown ids are ignored."""
        places = [place for place, row_id in enumerate(self.row_ids) if row_id not in row_ids]
        if len(places) == len(self.row_ids):
            return
        self.row_ids = [self.row_ids[place] for place in places]
        self._next_logprobs = [self._next_logprobs[place] for place in places]
        self._unfed &= set(self.row_ids)
        if not places:
            self.caches, self._next_tokens, self._next_finite = [], mx.array([], dtype=mx.uint32), None
            return
        keep(self.caches, places)
        index = mx.array(places, dtype=mx.int32)
        self._next_tokens = self._next_tokens[index]
        if self._next_finite is not None:
            self._next_finite = self._next_finite[index]
