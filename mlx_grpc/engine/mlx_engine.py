"""The engine on MLX: rows in, a Step out, with `batch` beneath. It decides when a row is done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import cast

import mlx.core as mx
import msgspec

from mlx_grpc.engine.accel.cpu.attention import LEAST_SCORES
from mlx_grpc.engine.accel.cpu.blas import every_processor
from mlx_grpc.engine.batch.decoding import Decoded
from mlx_grpc.engine.batch.generator import Batching, RowGenerator
from mlx_grpc.engine.batch.pace import PrefillPace
from mlx_grpc.engine.batch.prefill import tokens_for_scores
from mlx_grpc.engine.batch.prompts import Progress
from mlx_grpc.engine.loading.model import Model, load_model
from mlx_grpc.engine.messages import (
    LENGTH,
    RUNNING,
    STOPPED,
    Load,
    Loaded,
    Row,
    RowFailed,
    RowPrefill,
    RowToken,
    Step,
    TokenLogprobs,
)
from mlx_grpc.engine.prefix.cache import PrefixCache
from mlx_grpc.engine.protocol import LoadError, row_problem
from mlx_grpc.engine.sampling.sampler import BatchSampler, RowLogprobs

MOST_FOR_SCORES = 1 / 32
"""Of the device's memory, for the attention scores of a prefill."""
MOST_FOR_PREFIX_CACHE = 0.25
"""Of the memory that the weights leave."""
STALL_SHARE = 0.1
"""Of the time after which a silent engine is taken for hung, for one step's prompts."""


def open_mlx(load: Load, notes: Sequence[str] = ()) -> MlxEngine:
    """Load a model folder. Raises LoadError. `notes` go to the server with what loading found itself."""
    try:
        return MlxEngine(load_model(load, notes), load)
    except (LoadError, SystemExit):
        _drop_streams()
        raise


def _drop_streams() -> None:
    """This thread is done with MLX. A stream that a thread leaves behind can abort the process when that ends."""
    mx.synchronize()
    mx.clear_streams()


class MlxEngine:
    """A batch of rows of one model."""

    def __init__(self, model: Model, load: Load) -> None:
        free_bytes = max(0, model.loaded.memory_bytes - model.loaded.weights_bytes)
        prefix_cache_bytes = min(load.prefix_cache_bytes, int(free_bytes * MOST_FOR_PREFIX_CACHE))
        self.loaded: Loaded = msgspec.structs.replace(model.loaded, prefix_cache_bytes=prefix_cache_bytes)
        backend = model.backend
        self._max_rows = load.max_rows
        self._heads, self._scores_bytes = model.attention_heads, int(model.loaded.memory_bytes * MOST_FOR_SCORES)
        chunk_seconds = min(backend.chunk_seconds, load.stall_seconds * STALL_SHARE or backend.chunk_seconds)
        most_tokens = load.prefill_step_tokens or backend.most_chunk_tokens
        self._pace = PrefillPace(min(backend.gap_seconds, chunk_seconds), chunk_seconds, most_tokens, model.rate)
        self._decode_seconds = 0.0
        """What the last decode step took, the wait for its tokens included."""
        self._sampler = BatchSampler(model.loaded.vocab_size)
        self._generator: RowGenerator | None = RowGenerator(
            model.network,
            self._sampler,
            pipelined=backend.pipelined,
            batching=Batching(model.loaded.batching),
            grouped_masks=model.grouped_masks,
        )
        self._rows: dict[int, Row] = {}
        self._outputs: dict[int, list[int]] = {}
        """Tokens that each row generated, those of an earlier engine included; all of them have been fed."""
        self._prefixes = PrefixCache(prefix_cache_bytes)
        self._cached: dict[int, int] = {}
        """How many tokens of each row came from the prefix cache."""

    @property
    def active_rows(self) -> int:
        """Rows in the batch: waiting, in prefill or decoding."""
        return len(self._rows)

    @property
    def generator(self) -> RowGenerator:
        """The batch beneath. Raises RuntimeError when closed."""
        if self._generator is None:
            raise RuntimeError("the engine is closed")
        return self._generator

    def submit(self, rows: Sequence[Row]) -> list[RowFailed]:
        """Take rows in; those it cannot take are returned. One row's error is no other's."""
        failed = []
        for row in rows:
            free = self._max_rows - len(self._rows)
            problem = row_problem(row, self.loaded.vocab_size, free) or self._enter(row)
            if problem:
                failed.append(RowFailed(row.row_id, problem))
        return failed

    def cancel(self, row_ids: Sequence[int]) -> list[int]:
        """Take rows out; returns those that were in."""
        present = [row_id for row_id in row_ids if row_id in self._rows]
        self._leave(present)
        return present

    def expected_seconds(self) -> float:
        """How long the next step may take: its decode, and a chunk of prefill if prompts wait."""
        waiting = self.generator.waiting_ids
        return self._decode_seconds + (self._pace.expected_seconds(self._chunk_tokens(waiting)) if waiting else 0.0)

    def step(self) -> Step:
        """A token for each row that decodes; then, in the room that ended rows left, a chunk of prefill."""
        started = time.monotonic()
        decoded = self.generator.decode(ahead=self._is_alone())
        if decoded:
            self._decode_seconds = time.monotonic() - started
        tokens = [self._row_token(row) for row in decoded if row.finite]
        failed = [
            RowFailed(row.row_id, "the model's logits are not finite", False) for row in decoded if not row.finite
        ]
        self._leave([token.row_id for token in tokens if token.finish])
        self._leave([failure.row_id for failure in failed], keep=False)
        progress = self._prefill()
        return Step(
            tokens=tokens,
            prefill=[self._row_prefill(row) for row in progress],
            failed=failed,
            active_rows=len(self._rows),
            kv_bytes=self.generator.kv_bytes,
            memory_bytes=mx.get_active_memory(),
            prefix_cache_bytes=self._prefixes.nbytes,
        )

    def _is_alone(self) -> bool:
        """Whether there is one row, which goes on. On a CPU a step that is begun early spares it the time in which
        Python puts the graph together, 5 ms of 58; of more rows' that is little, and who comes or goes would wait
        for it. With a long context, attention would compute it before the last tokens are read."""
        if len(self._rows) != 1:
            return False
        ((row_id, row),) = self._rows.items()
        made = len(self._outputs[row_id])
        return made + 1 < row.max_tokens and len(row.prompt) + made + 1 < LEAST_SCORES

    def _prefill(self) -> list[Progress]:
        waiting = self.generator.waiting_ids
        if not waiting:
            return []
        started = time.monotonic()
        with every_processor():
            progress = self.generator.prefill(self._chunk_tokens(waiting))
        self._pace.record(self.generator.prefilled_tokens, time.monotonic() - started)
        return progress

    def _chunk_tokens(self, waiting: Sequence[int]) -> int:
        """How many prompt tokens of these rows the next step may process."""
        longest = max(len(row.prompt) + len(row.output) for row in map(self._rows.__getitem__, waiting))
        budget_tokens = self._pace.budget_tokens(self.generator.decoding_rows, len(waiting))
        return min(budget_tokens, tokens_for_scores(longest, self._heads, self._scores_bytes))

    def rest(self) -> None:
        """Give back the buffers that MLX keeps."""
        mx.clear_cache()

    def close(self) -> None:
        """Drop the batch and this thread's streams, which no other thread may: it cannot use MLX afterwards."""
        if self._generator is not None:
            self._generator.close()
            self._generator = None
        self._rows.clear()
        _drop_streams()

    def _enter(self, row: Row) -> str | None:
        """Let a row in, or say in one line why it cannot be. Whatever goes wrong here is this row's alone."""
        if row.row_id in self._rows:
            return f"row {row.row_id} is in the batch already"
        try:
            self._sampler.add(row)
            tokens = row.prompt + row.output
            caches, held = self._prefixes.fetch(row.cache_salt, tokens) if row.use_cache else (None, 0)
            self.generator.enter(row.row_id, tokens[held:], caches)
        except Exception as error:
            self._sampler.remove([row.row_id])
            return " ".join(str(error).split()) or type(error).__name__
        self._rows[row.row_id] = row
        self._outputs[row.row_id] = list(row.output)
        self._cached[row.row_id] = held
        return None

    def _leave(self, row_ids: Sequence[int], *, keep: bool = True) -> None:
        """Take rows out of the batch; what they computed is kept for those who begin alike, unless it must not be."""
        if not row_ids:
            return
        for row_id in row_ids:
            row = self._rows[row_id]
            caches = self.generator.row_caches(row_id) if keep and row.use_cache and self._prefixes.enabled else None
            if caches is not None:
                tokens = row.prompt + self._outputs[row_id]
                self._prefixes.keep(row.cache_salt, tokens[: len(tokens) - caches[1]], caches[0])
        self.generator.remove_rows(row_ids)
        self._sampler.remove(row_ids)
        for row_id in row_ids:
            del self._rows[row_id], self._outputs[row_id], self._cached[row_id]

    def _row_prefill(self, progress: Progress) -> RowPrefill:
        held = self._cached[progress.row_id]
        return RowPrefill(progress.row_id, held + progress.processed, held + progress.total, held)

    def _row_token(self, decoded: Decoded) -> RowToken:
        row = self._rows[decoded.row_id]
        output = self._outputs[row.row_id]
        output.append(decoded.token)
        finish = RUNNING
        if decoded.token in row.stop_ids:
            finish = STOPPED
        elif len(output) >= row.max_tokens:
            finish = LENGTH
        return RowToken(row.row_id, decoded.token, finish, _token_logprobs(decoded.logprobs))


def _token_logprobs(logprobs: RowLogprobs | None) -> TokenLogprobs | None:
    if logprobs is None:
        return None
    chosen, top_ids, top = logprobs
    # Their types say any rank and kind; these are a float, a row of ids and a row of floats.
    return TokenLogprobs(cast(float, chosen.item()), cast(list[int], top_ids.tolist()), cast(list[float], top.tolist()))
