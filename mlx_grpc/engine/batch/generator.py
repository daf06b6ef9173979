"""mlx_lm's batch generator, bent to steps whose moves the engine makes.

This, `row_batches`, `kv_cache`, `fused_llama` and `cpu_attention` are the modules that touch what mlx_lm does not
promise; a test fails when mlx_lm's version moves. What is ours here: prefill goes by a budget for the step, rows enter
and leave between steps, and when a decode step begins. What stays mlx_lm's: the caches of anything but plain attention,
and merging.

All calls, dropping it included, belong to one thread: streams do.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import make_prompt_cache

from mlx_grpc.engine.batch.prefill import chunk_tokens, rows_to_admit
from mlx_grpc.engine.batch.rows import NO_LIMIT, NO_STOP_SEQUENCES, DecodeBatch, Decoded, PromptBatch
from mlx_grpc.engine.sampling.sampler import BatchSampler

MLX_LM_VERSION = "0.32.2"

CLEAR_CACHE_STEPS = 512


@dataclass(frozen=True, slots=True)
class Progress:
    """Tokens of a row's prompt that have been processed, of how many."""

    row_id: int
    processed: int
    total: int


class RowGenerator(BatchGenerator):  # type: ignore[misc]
    """Rows from prompt to tokens, in three moves a step: `decode`, `remove_rows`, `prefill`.

    Running ahead, `decode` begins the next step before it reads the last one's tokens, so that nothing waits for
    Python; rows that have ended are computed once more, in vain. Pipelined, which a GPU needs, it always does.
    Otherwise it begins what it then reads, after rows have come and gone.

    Waiting rows keep mlx_lm's layout (id, segments, max_tokens, cache, tokens, sampler, processors, stop
    sequences), and `_currently_processing` its entries of [segments, processed, total], so that its `remove`
    finds them.
    """

    _currently_processing: list[Any]

    def __init__(self, model: Module, sampler: BatchSampler, max_rows: int, *, pipelined: bool) -> None:
        super().__init__(model, sampler=sampler, completion_batch_size=max_rows, prefill_batch_size=max_rows)
        self._prompt_batch = PromptBatch.empty(model, sampler)
        self._generation_batch = DecodeBatch.empty(model, sampler)
        self.pipelined = pipelined
        """Changed only between steps of an empty batch."""
        self._is_ahead = False
        """Whether the tokens that were last begun are still to be read."""
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

    @property
    def waiting_ids(self) -> list[int]:
        """Who they are."""
        return [*self._prompt_batch.uids, *(sequence[0] for sequence in self._unprocessed_sequences)]

    def enter(self, row_id: int, tokens: Sequence[int], caches: list[Any] | None = None) -> None:
        """Let a row wait for prefill. tokens: at least one; they go on after those that `caches` hold."""
        cache = caches or make_prompt_cache(self.model)
        segments = [list(tokens[:-1]), list(tokens[-1:])]
        self._unprocessed_sequences.append((row_id, segments, NO_LIMIT, cache, [], None, (), NO_STOP_SEQUENCES))

    def row_caches(self, row_id: int) -> tuple[list[Any], int] | None:
        """A copy of the caches of a row that decodes, and how many of the last tokens that `decode` gave are not in
        them yet; None for any other row."""
        if not self._generation_batch.has_fed(row_id):
            return None
        with mx.stream(self._stream):
            caches: list[Any] = self._generation_batch.extract_cache(self._generation_batch.uids.index(row_id))
            return caches, 0 if self._is_ahead else 1

    def remove_rows(self, row_ids: Collection[int]) -> None:
        """Take rows out, wherever they are. Unknown ids are ignored."""
        if row_ids:
            with mx.stream(self._stream):
                self.remove(row_ids)

    def decode(self, *, ahead: bool = False) -> list[Decoded]:
        """One token for each row that has been fed its prompt."""
        batch = self._generation_batch
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
            decoded: list[Decoded] = upcoming.read()
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
            stop_sequences=[NO_STOP_SEQUENCES] * rows,
        )

    def _process_chunk(self, budget_tokens: int) -> list[Progress]:
        remaining = [length for length in self._remaining() if length]
        if not remaining:
            return []
        chunk = chunk_tokens(remaining, budget_tokens)
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
        rows, last_tokens = self._prompt_batch.split(ready), [token for (_, (token,)), _, _ in entries]
        progress = [Progress(row_id, total, total) for row_id, (_, _, total) in zip(rows.uids, entries, strict=True)]
        alone = not len(self._generation_batch)
        self._generation_batch.extend(rows.decoding(last_tokens))
        if alone:
            self._is_ahead = self.pipelined
            if self.pipelined:
                self._generation_batch.start()
        return progress
