"""What the worker asks of an engine: the batch on MLX and the scripted one both keep to this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from mlx_grpc.engine.messages import Load, Loaded, Row, RowFailed, Step


class LoadError(Exception):
    """The model cannot be loaded. Its text is one line that says what is wrong."""


class Engine(Protocol):
    """A batch of rows that goes on by steps. All calls come from the thread that opened it."""

    @property
    def loaded(self) -> Loaded:
        """What the server is told about the model."""

    @property
    def active_rows(self) -> int:
        """Rows in the batch: waiting for prefill, in it, or decoding."""

    def submit(self, rows: Sequence[Row]) -> list[RowFailed]:
        """Let these rows enter together. Those it cannot take are returned, the others are in."""

    def cancel(self, row_ids: Sequence[int]) -> list[int]:
        """Take rows out; returns those that were in."""

    def expected_seconds(self) -> float:
        """How long the next step may take, by what earlier ones took; 0 where nothing is known."""

    def step(self) -> Step:
        """One token for each row that decodes, then one chunk of prefill. `active_rows` counts those still
        in."""

    def rest(self) -> None:
        """There are no rows, and none have come for a while: give back what is kept for the next step alone."""

    def close(self) -> None:
        """Let go of all that the engine holds."""


OpenEngine = Callable[[Load], Engine]
"""Loads a model. Raises LoadError."""


def row_problem(row: Row, vocab_size: int, free_rows: int) -> str | None:
    """Why the batch cannot take this row, in one line, or None. The server checks all this before; a row that
    slips through must fail alone, not take the batch with it."""
    if free_rows <= 0:
        return "the batch is full: every row is taken"
    if not row.prompt:
        return "the prompt is empty"
    if row.max_tokens <= len(row.output):
        return f"max_tokens is {row.max_tokens} and {len(row.output)} tokens are generated already"
    for token in (*row.prompt, *row.output):
        if not 0 <= token < vocab_size:
            return f"token id {token} is outside the vocabulary of {vocab_size}"
    return None
