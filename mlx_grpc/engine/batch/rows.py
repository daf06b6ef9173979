"""mlx_lm's two batches, those in prefill and those that decode, with one shared sampler.

What is ours: the sampler sees logits, row ids and inputs of all rows at once, and no log-probabilities are
computed that nobody asked for; caches know their padding on the host; rows whose prompts are done join those that
decode without a step of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import mlx.core as mx
from mlx_lm.generate import GenerationBatch, PromptProcessingBatch, StopSequences

from mlx_grpc.engine.batch.row_caches import known_on_host, row_of
from mlx_grpc.engine.sampling.sampler import RowLogprobs

NO_STOP_SEQUENCES = StopSequences()
NO_LIMIT = 1 << 62  # the engine counts a row's tokens


@dataclass(frozen=True, slots=True)
class Decoded:
    """A row's new token. logprobs is computed already."""

    row_id: int
    token: int
    logprobs: RowLogprobs | None


class Upcoming(NamedTuple):
    """Tokens that are being computed. tokens: [rows]; unfed: rows whose token is the last of their prompt."""

    row_ids: list[int]
    tokens: mx.array
    logprobs: list[RowLogprobs | None]
    unfed: frozenset[int]

    def read(self) -> list[Decoded]:
        """Wait for them."""
        mx.eval(self.tokens, [array for row in self.logprobs if row is not None for array in row])
        decoded = map(Decoded, self.row_ids, cast(list[int], self.tokens.tolist()), self.logprobs)
        return [row for row in decoded if row.row_id not in self.unfed]


class DecodeBatch(GenerationBatch):  # type: ignore[misc]
    """Rows that decode. Its `fallback_sampler` is the batch's BatchSampler.

    Rows enter with their last prompt tokens still to be fed, together with the others' next ones: a step of their own
    would cost as much as one of all.
    """

    _next_tokens: mx.array
    _next_logprobs: list[RowLogprobs | None]

    def __init__(self, *fields: Any, **named: Any) -> None:
        super().__init__(*fields, **named)
        self._unfed = frozenset(self.uids)
        self._next_logprobs = [None] * len(self.uids)

    def _step(self) -> tuple[list[int], list[RowLogprobs | None]]:
        """mlx_lm begins with a step; here `start` does."""
        return [], []

    def extend(self, batch: DecodeBatch) -> None:
        """Take another's rows in, after these."""
        super().extend(batch)
        self._unfed |= batch._unfed

    def has_fed(self, row_id: int) -> bool:
        """Whether the row is here, and its caches hold its whole prompt."""
        return row_id in self.uids and row_id not in self._unfed

    def extract_cache(self, idx: int) -> list[Any]:
        """A copy of one row's caches."""
        return row_of(self.prompt_cache, idx)

    def upcoming(self) -> Upcoming:
        """The tokens that `start` will feed."""
        return Upcoming(list(self.uids), self._next_tokens, list(self._next_logprobs), self._unfed)

    def start(self) -> None:
        """Feed them, and begin to compute those that follow."""
        inputs, self._unfed = self._next_tokens, frozenset()
        logits = self.model(inputs[:, None], cache=self.prompt_cache)[:, -1, :]
        sampled = self.fallback_sampler.sample(logits, self.uids, inputs)
        self._next_tokens, self._next_logprobs = sampled.tokens, sampled.logprobs
        mx.async_eval(sampled.arrays())  # type: ignore[no-untyped-call]


class PromptBatch(PromptProcessingBatch):  # type: ignore[misc]
    """Rows in prefill."""

    prompt_cache: list[Any]

    def __init__(self, *fields: Any, **named: Any) -> None:
        super().__init__(*fields, **named)
        self.prompt_cache = known_on_host(self.prompt_cache)

    def prompt(self, tokens: list[list[int]]) -> None:
        """Process a chunk of each row. What memory it took stays with MLX for the next one: emptied after every chunk,
        as mlx_lm does, the step after it would allocate all anew."""
        lengths = [len(row) for row in tokens]
        padding = [max(lengths) - length for length in lengths]
        if any(padding):
            for cache in self.prompt_cache:
                cache.prepare(lengths=lengths, right_padding=padding)
        padded = [row + [0] * missing for row, missing in zip(tokens, padding, strict=True)]
        self.model(mx.array(padded), cache=self.prompt_cache)
        if any(padding):
            for cache in self.prompt_cache:
                cache.finalize()
        mx.eval([cache.state for cache in self.prompt_cache])

    def split(self, indices: list[int]) -> PromptBatch:
        """Take rows out. All of them need no copy of the cache."""
        if len(indices) < len(self.uids):
            rest: PromptBatch = super().split(indices)
            return rest
        whole = self._copy_without_cache()
        self.filter([])
        return whole

    def _copy_without_cache(self) -> PromptBatch:
        """What `_copy` gives, holding this batch's own caches instead of copies."""
        caches, self.prompt_cache = self.prompt_cache, []
        copy: PromptBatch = self._copy()
        copy.prompt_cache = caches
        return copy

    def decoding(self, tokens: list[int]) -> DecodeBatch:
        """The rows as those that decode, these last tokens of their prompts still to be fed."""
        rows = len(self.uids)
        return DecodeBatch(
            self.model,
            self.uids,
            mx.array(tokens, dtype=mx.uint32),
            self.prompt_cache,
            [[] for _ in range(rows)],
            [None] * rows,
            self.fallback_sampler,
            [()] * rows,
            [NO_STOP_SEQUENCES] * rows,
            [NO_LIMIT] * rows,
        )
