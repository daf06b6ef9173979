"""All rows of the batch, from prompt to tokens, by steps whose moves the engine makes.

This package and `engine.accel` are what touches things that mlx_lm does not promise; a test fails when mlx_lm's version
moves. Of mlx_lm's batch only the merging of caches is used, of kinds that have no cache of ours.

All calls, dropping it included, belong to one thread: streams do.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx_lm.generate import generation_stream
from mlx_lm.models.cache import make_prompt_cache

from mlx_grpc.engine.batch.caches.rows import Caches
from mlx_grpc.engine.batch.caches.shared import SharedArrays
from mlx_grpc.engine.batch.decoding import DecodeBatch, Decoded
from mlx_grpc.engine.batch.prefill import chunk_tokens, rows_to_admit
from mlx_grpc.engine.batch.prompts import Progress, PromptBatch, PromptRow
from mlx_grpc.engine.sampling.sampler import BatchSampler

MLX_LM_VERSION = "0.32.2"

CLEAR_CACHE_STEPS = 512


class Batching(enum.StrEnum):
    """How a model's rows may share the device."""

    PADDED = "PADDED"
    """Prompts of different lengths are padded and processed together."""
    ALIGNED = "ALIGNED"
    """Prompts are processed one at a time; rows decode together."""
    ALONE = "ALONE"
    """One row at a time."""


class RowGenerator:
    """Rows from prompt to tokens, in three moves a step: `decode`, `remove_rows`, `prefill`.

    Running ahead, `decode` begins the next step before it reads the last one's tokens, so that nothing waits for
    Python; rows that have ended are computed once more, in vain. Pipelined, which a GPU needs, it always does.
    Otherwise it begins what it then reads, after rows have come and gone.
    """

    def __init__(
        self,
        model: Module,
        sampler: BatchSampler,
        *,
        pipelined: bool,
        batching: Batching = Batching.PADDED,
        grouped_masks: bool = False,
    ) -> None:
        self.pipelined = pipelined
        """Changed only between steps of an empty batch."""
        self.prefilled_tokens = 0
        """What the last prefill took, padding included."""
        self._model = model
        self._batching = batching
        shared = None if batching is Batching.ALONE else SharedArrays(grouped_masks=grouped_masks)
        self._waiting: deque[PromptRow] = deque()
        self._prompts = PromptBatch(model, [], shared)
        self._ready: list[PromptBatch] = []
        """Rows whose prompts are processed, before they decode."""
        self._decoding = DecodeBatch(model, sampler, mergeable=shared is not None)
        self._stream = generation_stream
        self._is_ahead = False
        """Whether the tokens that were last begun are still to be read."""
        self._steps = 0

    @property
    def decoding_rows(self) -> int:
        """Rows past their prompt."""
        return len(self._decoding)

    @property
    def waiting_ids(self) -> list[int]:
        """Rows before and in prefill, and those that are about to decode."""
        groups = (self._prompts.rows, *(batch.rows for batch in self._ready), self._waiting)
        return [row.row_id for group in groups for row in group]

    @property
    def kv_bytes(self) -> int:
        """What the caches of all rows take."""
        held = [self._prompts.caches, self._decoding.caches, *(batch.caches for batch in self._ready)]
        return sum(cache.nbytes for caches in (*held, *(row.caches for row in self._waiting)) for cache in caches)

    def enter(self, row_id: int, tokens: Sequence[int], caches: Caches | None = None) -> None:
        """Let a row wait for prefill. tokens: at least one; they go on after those that `caches` hold."""
        own: list[Any] = caches or make_prompt_cache(self._model)
        self._waiting.append(PromptRow(row_id, list(tokens[:-1]), tokens[-1], len(tokens), own))

    def row_caches(self, row_id: int) -> tuple[Caches, int] | None:
        """A copy of the caches of a row that decodes, and how many of the last tokens that `decode` gave are not in
        them yet; None for any other row."""
        if not self._decoding.has_fed(row_id):
            return None
        with mx.stream(self._stream):
            return self._decoding.row_caches(row_id), 0 if self._is_ahead else 1

    def remove_rows(self, row_ids: Collection[int]) -> None:
        """Take rows out, wherever they are. Unknown ids are ignored."""
        if not row_ids:
            return
        with mx.stream(self._stream):
            self._waiting = deque(row for row in self._waiting if row.row_id not in row_ids)
            for batch in (self._prompts, *self._ready):
                batch.remove(row_ids)
            self._ready = [batch for batch in self._ready if len(batch)]
            self._decoding.remove(row_ids)

    def decode(self, *, ahead: bool = False) -> list[Decoded]:
        """One token for each row that has been fed its prompt."""
        batch = self._decoding
        if not len(batch):
            return []
        self._steps += 1
        if self._steps % CLEAR_CACHE_STEPS == 0:
            mx.clear_cache()
        with mx.stream(self._stream):
            if not self._is_ahead:
                batch.start()
            upcoming = batch.upcoming()
            self._is_ahead = self.pipelined or ahead
            if self._is_ahead:
                batch.start()
            return upcoming.read()

    def prefill(self, budget_tokens: int) -> list[Progress]:
        """One chunk for each prompt in prefill, of at most so many tokens in all, padding included.

        Prompts that are done start to decode in the next call, with those that are done by then, so that the batch
        grows once for all that came close together: one by one costs a GPU two thirds of its rate. They do not wait for
        longer prompts, nor when nothing was processed.
        """
        with mx.stream(self._stream):
            self._admit(budget_tokens)
            held_back = bool(self._ready)
            self._take_done()
            self.prefilled_tokens = 0
            progress = self._process(budget_tokens) if self._prompts.rows else []
            processed = self.prefilled_tokens > 0
            if processed:
                self._take_done()
            wait = processed and not held_back and not self._prompts.rows
            return progress if wait else progress + self._start_decoding()

    def close(self) -> None:
        """Drop all rows."""
        self.remove_rows({*self.waiting_ids, *self._decoding.row_ids})

    def _admit(self, budget_tokens: int) -> None:
        waiting = [len(row.rest) for row in self._waiting]
        if self._batching is Batching.PADDED:
            admitted = rows_to_admit(self._prompts.remaining, waiting, budget_tokens)
        else:
            others = len(self._prompts) + (self._batching is Batching.ALONE) * (len(self._decoding) + len(self._ready))
            admitted = int(bool(waiting) and not others)
        self._prompts.admit([self._waiting.popleft() for _ in range(admitted)])

    def _take_done(self) -> None:
        """Rows without anything to process never share a chunk with others."""
        done = self._prompts.take_done()
        if done is not None:
            self._ready.append(done)

    def _process(self, budget_tokens: int) -> list[Progress]:
        chunk = chunk_tokens(self._prompts.remaining, budget_tokens)
        self.prefilled_tokens = chunk * len(self._prompts)
        return self._prompts.process(chunk)

    def _start_decoding(self) -> list[Progress]:
        """Let the rows decode whose prompts are processed, except for the last token."""
        if not self._ready:
            return []
        rows = [row for batch in self._ready for row in batch.rows]
        alone = not len(self._decoding)
        self._decoding.join(self._ready)
        self._ready = []
        if alone:
            self._is_ahead = self.pipelined
            if self.pipelined:
                self._decoding.start()
        return [Progress(row.row_id, row.total, row.total) for row in rows]
