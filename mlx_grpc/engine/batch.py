"""mlx_lm's batch generator, bent to one shared sampler and a prefill budget.

The one module that touches what mlx_lm does not promise; a test fails when mlx_lm's version moves. What is
ours: the sampler sees logits, row ids and inputs of all rows at once, and no log-probabilities are computed
that nobody asked for; prefill goes by a budget for the step, and a prompt that is done starts to decode in
the same step; no cache is copied out for a row that ends. What stays mlx_lm's: caches, masks, padding,
merging, and the pipelining of decode steps.

All calls, dropping it included, belong to one thread: streams do.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx_lm.generate import BatchGenerator, GenerationBatch, PromptProcessingBatch, StopSequences
from mlx_lm.models.cache import make_prompt_cache

from mlx_grpc.engine.prefill import chunk_tokens, rows_to_admit
from mlx_grpc.engine.sampler import BatchSampler, RowLogprobs

MLX_LM_VERSION = "0.32.2"

CLEAR_CACHE_STEPS = 512
_NO_STOP_SEQUENCES = StopSequences()
_NO_LIMIT = 1 << 62  # the engine counts a row's tokens


@dataclass(frozen=True, slots=True)
class Decoded:
    """A row's new token. logprobs is computed already."""

    row_id: int
    token: int
    logprobs: RowLogprobs | None


@dataclass(frozen=True, slots=True)
class Progress:
    """Tokens of a row's prompt that have been processed, of how many."""

    row_id: int
    processed: int
    total: int


class DecodeBatch(GenerationBatch):  # type: ignore[misc]
    """Rows that decode. Its `fallback_sampler` is the batch's BatchSampler."""

    _next_tokens: mx.array
    _next_logprobs: list[RowLogprobs | None]

    def _step(self) -> tuple[list[int], list[RowLogprobs | None]]:
        """Start computing the next tokens, then read the current ones."""
        inputs, logprobs = self._next_tokens, self._next_logprobs
        self._current_tokens, self._current_logprobs = inputs, logprobs
        logits = self.model(inputs[:, None], cache=self.prompt_cache)[:, -1, :]
        sampled = self.fallback_sampler.sample(logits, self.uids, inputs)
        self._next_tokens, self._next_logprobs = sampled.tokens, sampled.logprobs
        mx.async_eval(sampled.arrays())  # type: ignore[no-untyped-call]
        mx.eval(inputs, [array for row in logprobs if row is not None for array in row])
        return cast(list[int], inputs.tolist()), logprobs

    def next(self) -> list[Decoded]:
        """One token for each row. Rows that are done are removed by who counts them."""
        tokens, logprobs = self._step()
        return [Decoded(*row) for row in zip(self.uids, tokens, logprobs, strict=True)]


class PromptBatch(PromptProcessingBatch):  # type: ignore[misc]
    """Rows in prefill."""

    prompt_cache: list[Any]

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

    def generate(self, tokens: list[list[int]]) -> DecodeBatch:
        """The rows, their last tokens fed and their first new tokens being computed."""
        rows = len(self.uids)
        return DecodeBatch(
            self.model,
            self.uids,
            mx.array([last for (last,) in tokens]),
            self.prompt_cache,
            [[] for _ in range(rows)],
            [None] * rows,
            self.fallback_sampler,
            [()] * rows,
            [_NO_STOP_SEQUENCES] * rows,
            [_NO_LIMIT] * rows,
        )


class RowGenerator(BatchGenerator):  # type: ignore[misc]
    """Rows from prompt to tokens, in three moves a step: `decode`, `remove_rows`, `prefill`.

    Waiting rows keep mlx_lm's layout (id, segments, max_tokens, cache, tokens, sampler, processors, stop
    sequences), and `_currently_processing` its entries of [segments, processed, total], so that its `remove`
    finds them.
    """

    _currently_processing: list[Any]

    def __init__(self, model: Module, sampler: BatchSampler, max_rows: int) -> None:
        super().__init__(model, sampler=sampler, completion_batch_size=max_rows, prefill_batch_size=max_rows)
        self._prompt_batch = PromptBatch.empty(model, sampler)
        self._generation_batch = DecodeBatch.empty(model, sampler)
        self._steps = 0
        self.prefilled_tokens = 0
        """What the last prefill took, padding included."""

    @property
    def decoding_rows(self) -> int:
        """Rows past their prompt."""
        return len(self._generation_batch)

    @property
    def waiting_rows(self) -> int:
        """Rows in prefill, and those before it."""
        return len(self._currently_processing) + len(self._unprocessed_sequences)

    def enter(self, row_id: int, tokens: Sequence[int], caches: list[Any] | None = None) -> None:
        """Let a row wait for prefill. tokens: at least one; they go on after those that `caches` hold."""
        cache = caches or make_prompt_cache(self.model)
        segments = [list(tokens[:-1]), list(tokens[-1:])]
        self._unprocessed_sequences.append((row_id, segments, _NO_LIMIT, cache, [], None, (), _NO_STOP_SEQUENCES))

    def row_caches(self, row_id: int) -> list[Any] | None:
        """A copy of the caches of a row that decodes, or has processed all its prompt but for the last token; None for
        any other. They hold every token that was fed."""
        with mx.stream(self._stream):
            if row_id in self._generation_batch.uids:
                caches: list[Any] = self._generation_batch.extract_cache(self._generation_batch.uids.index(row_id))
                return caches
        return None

    def remove_rows(self, row_ids: Collection[int]) -> None:
        """Take rows out, wherever they are. Unknown ids are ignored."""
        if row_ids:
            with mx.stream(self._stream):
                self.remove(row_ids)

    def decode(self) -> list[Decoded]:
        """One token for each row that is past its prompt."""
        if not len(self._generation_batch):
            return []
        self._steps += 1
        if self._steps % CLEAR_CACHE_STEPS == 0:
            mx.clear_cache()
        with mx.stream(self._stream):
            decoded: list[Decoded] = self._generation_batch.next()
            return decoded

    def prefill(self, budget_tokens: int) -> list[Progress]:
        """One chunk for each prompt in prefill, of at most so many tokens in all, padding included.

        Prompts that are done start to decode in the next call, with those that are done by then, so that the batch
        grows once for all that came close together: one by one costs a GPU two thirds of its rate. They do not wait for
        longer prompts, nor when nothing was processed.
        """
        waiting = [len(sequence[1][0]) for sequence in self._unprocessed_sequences]
        admitted = rows_to_admit(self._remaining(), waiting, budget_tokens)
        held_back = any(length == 0 for length in self._remaining())
        with mx.stream(self._stream):
            if admitted:
                self._prompt_batch.extend(self._make_batch(admitted))
            self.prefilled_tokens = 0
            progress = self._process_chunk(budget_tokens)
            wait = self.prefilled_tokens > 0 and not held_back and not any(self._remaining())
            return progress if wait else progress + self._start_decoding()

    def _remaining(self) -> list[int]:
        return [len(segments[0]) for segments, _, _ in self._currently_processing]

    def _make_batch(self, rows: int) -> PromptBatch:
        sequences = [self._unprocessed_sequences.popleft() for _ in range(rows)]
        self._currently_processing += [[seq[1], 0, len(seq[1][0]) + 1] for seq in sequences]
        fields: dict[str, list[Any]] = {
            name: [sequence[column] for sequence in sequences]
            for column, name in enumerate(("uids", "", "max_tokens", "caches", "tokens", "samplers"))
            if name
        }
        return PromptBatch(
            self.model,
            **fields,
            fallback_sampler=self.sampler,
            logits_processors=[()] * rows,
            stop_sequences=[_NO_STOP_SEQUENCES] * rows,
        )

    def _process_chunk(self, budget_tokens: int) -> list[Progress]:
        remaining = [length for length in self._remaining() if length]
        if not remaining:
            return []
        chunk = chunk_tokens(remaining, budget_tokens)
        self._prompt_batch.prefill_step_size = chunk
        self.prefilled_tokens = chunk * len(self._currently_processing)
        chunks = []
        for entry in self._currently_processing:
            segment = entry[0][0]
            chunks.append(segment[:chunk])
            entry[0][0] = segment[chunk:]
            entry[1] += len(chunks[-1])
        self._prompt_batch.prompt(chunks)
        entries = zip(self._prompt_batch.uids, self._currently_processing, strict=True)
        return [Progress(row_id, done, total) for row_id, (rest, done, total) in entries if rest[0]]

    def _start_decoding(self) -> list[Progress]:
        """Move the rows whose prompts are processed, but for the last token, to those that decode."""
        ready = [index for index, length in enumerate(self._remaining()) if length == 0]
        if not ready:
            return []
        entries = [self._currently_processing[index] for index in ready]
        self._currently_processing = [entry for entry in self._currently_processing if entry[0][0]]
        batch = self._prompt_batch.split(ready).generate([entry[0][1] for entry in entries])
        progress = [Progress(row_id, total, total) for row_id, (_, _, total) in zip(batch.uids, entries, strict=True)]
        self._generation_batch.extend(batch)
        return progress
