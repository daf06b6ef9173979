"""Rows in prefill: their prompts are processed chunk by chunk, several rows at once, up to each one's last token."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import mlx.core as mx
from mlx.nn.layers.base import Module

from mlx_grpc.engine.batch.caches.rows import Caches, batched, extend, keep, selected
from mlx_grpc.engine.batch.caches.shared import SharedArrays


@dataclass(slots=True)
class PromptRow:
    """A row before its first token. `rest`: what is still to be processed. `last`: the prompt's last token, which the
    first decode step feeds."""

    row_id: int
    rest: list[int]
    last: int
    total: int
    caches: Caches
    """Its own, from before its prefill; empty once they are part of a batch."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Tokens of a row's prompt that have been processed, of how many."""

    row_id: int
    processed: int
    total: int


class PromptBatch:
    """The rows and their caches. `shared` None: there is never more than one row, and it keeps its own caches."""

    def __init__(self, model: Module, rows: list[PromptRow], shared: SharedArrays | None) -> None:
        self.rows = rows
        self.caches: Caches = []
        self._model = model
        self._shared = shared
        if rows:
            self.caches = rows[0].caches if shared is None else batched([row.caches for row in rows], shared)
        for row in rows:
            row.caches = []

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def remaining(self) -> list[int]:
        """How many tokens of each row are still to be processed."""
        return [len(row.rest) for row in self.rows]

    def admit(self, rows: list[PromptRow]) -> None:
        """Take rows in, after these."""
        if not rows:
            return
        entering = PromptBatch(self._model, rows, self._shared)
        if self.rows:
            extend(self.caches, [entering.caches])
        else:
            self.caches = entering.caches
        self.rows += entering.rows

    def process(self, chunk: int) -> list[Progress]:
        """Process the next tokens of each row, `chunk` at most. What memory it took stays with MLX for the next chunk:
        emptied after each, the step after it would allocate all anew."""
        chunks = [row.rest[:chunk] for row in self.rows]
        lengths = [len(tokens) for tokens in chunks]
        padding = [max(lengths) - length for length in lengths]
        if any(padding):
            for cache in self.caches:
                cache.prepare(lengths=lengths, right_padding=padding)
        padded = [tokens + [0] * missing for tokens, missing in zip(chunks, padding, strict=True)]
        self._model(mx.array(padded), cache=self.caches)
        if any(padding):
            for cache in self.caches:
                cache.finalize()
        mx.eval([cache.state for cache in self.caches])
        for row in self.rows:
            row.rest = row.rest[chunk:]
        return [Progress(row.row_id, row.total - len(row.rest) - 1, row.total) for row in self.rows if row.rest]

    def take_done(self) -> PromptBatch | None:
        """Take out the rows whose prompts are processed. All of them need no copy of the caches."""
        done = [place for place, row in enumerate(self.rows) if not row.rest]
        if not done:
            return None
        taken = PromptBatch(self._model, [], self._shared)
        taken.rows = [self.rows[place] for place in done]
        if len(done) == len(self.rows):
            taken.caches, self.caches, self.rows = self.caches, [], []
            return taken
        taken.caches = selected(self.caches, done)
        self._keep([place for place, row in enumerate(self.rows) if row.rest])
        return taken

    def remove(self, row_ids: Collection[int]) -> None:
        """Drop rows. Unknown ids are ignored."""
        left = [place for place, row in enumerate(self.rows) if row.row_id not in row_ids]
        if len(left) < len(self.rows):
            self._keep(left)

    def _keep(self, places: Sequence[int]) -> None:
        self.rows = [self.rows[place] for place in places]
        if places:
            keep(self.caches, places)
        else:
            self.caches = []
