"""What is done to the logits before anything is drawn: bias, penalties, and stop tokens that come too early.

Histories stay on the accelerator, since the newest token is still being computed when the next step is built.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import mlx.core as mx

from mlx_grpc.engine.messages import Row


@dataclass
class RowState:
    """A row of the batch: its request, and how many tokens of its output have been sampled."""

    row: Row
    position: int
    past: mx.array | None = None

    @property
    def has_penalties(self) -> bool:
        settings = self.row.sampling
        return settings.repetition_penalty != 1.0 or self.has_output_penalties

    @property
    def has_output_penalties(self) -> bool:
        return self.row.sampling.presence_penalty != 0.0 or self.row.sampling.frequency_penalty != 0.0

    @property
    def window(self) -> int:
        """How many of the last tokens the repetition penalty looks at now."""
        if self.row.sampling.repetition_penalty == 1.0:
            return 0
        return min(self.row.sampling.repetition_window, len(self.row.prompt) + self.position)

    @property
    def needed(self) -> int:
        return max(1, self.window, self.position if self.has_output_penalties else 0)


class Histories:
    """The last tokens of the rows with penalties as one [rows, width] array, newest last; what is left of a row's
    beginning is filler, and `RowState` knows how long the row is."""

    def __init__(self) -> None:
        self._states: list[RowState] = []
        self._tokens: mx.array | None = None

    def extended(self, states: list[RowState], inputs: mx.array) -> mx.array:
        """The histories of `states` with `inputs` [rows], the tokens just fed to the model, at their end."""
        if [id(s) for s in states] != [id(s) for s in self._states]:
            self._regroup(states)
        assert self._tokens is not None
        width = max(state.needed for state in states)
        tokens = mx.concatenate([self._tokens, inputs[:, None].astype(mx.int32)], axis=1)
        self._tokens = tokens[:, max(0, tokens.shape[1] - width) :]
        return self._tokens

    def _regroup(self, states: list[RowState]) -> None:
        if self._tokens is not None:
            for state, past in zip(self._states, self._tokens, strict=True):
                state.past = past
        # A row's first inputs are the last token of its prompt or output: it arrives with them.
        pasts = [_first_past(state) if state.past is None else state.past for state in states]
        width = max(past.size for past in pasts)
        self._tokens = mx.stack([mx.pad(past, (width - past.size, 0)) for past in pasts])
        self._states = list(states)


def _first_past(state: RowState) -> mx.array:
    known = state.row.prompt + state.row.output
    return mx.array(known[max(0, len(known) - state.needed) : -1], dtype=mx.int32)


def penalised(logits: mx.array, index: mx.array, states: list[RowState], history: mx.array) -> mx.array:
    """`logits` with the penalties of the rows `index` [penalised rows]. history: [penalised rows, width].

    Repetition as in mlx_lm (https://arxiv.org/abs/1909.05858), once for each distinct token of the window; presence
    and frequency as OpenAI has them, over the output: logit - presence - count * frequency.
    """
    rows = index[:, None]
    if any(state.window for state in states):
        seen, _ = _recent(history, [state.window for state in states])
        penalty = mx.array([state.row.sampling.repetition_penalty for state in states])[:, None]
        old = logits[rows, seen]
        logits = _assigned(logits, rows, seen, mx.where(old < 0, old * penalty, old / penalty))
    if any(state.has_output_penalties and state.position for state in states):
        lengths = [state.position if state.has_output_penalties else 0 for state in states]
        seen, counts = _recent(history, lengths)
        presence = [s.row.sampling.presence_penalty if n else 0.0 for s, n in zip(states, lengths, strict=True)]
        logits = _assigned(logits, rows, seen, logits[rows, seen] - mx.array(presence)[:, None])
        frequency = mx.array([state.row.sampling.frequency_penalty for state in states])[:, None]
        logits = logits.at[rows, seen].subtract(counts * frequency)
    return logits


def _recent(history: mx.array, lengths: list[int]) -> tuple[mx.array, mx.array]:
    """The last lengths[i] tokens of each row, filled up with its newest, and which of them are no filler."""
    width = history.shape[1]
    real = mx.arange(width)[None, :] >= width - mx.array(lengths)[:, None]
    return mx.where(real, history, history[:, -1:]), real


def _assigned(logits: mx.array, rows: mx.array, columns: mx.array, values: mx.array) -> mx.array:
    changed = logits[:]
    changed[rows, columns] = values
    return changed


class Bias:
    """The logit biases of a group of rows, as one scatter."""

    def __init__(self, states: Iterable[RowState]) -> None:
        entries = [(i, token, b) for i, s in enumerate(states) for token, b in s.row.sampling.logit_bias.items()]
        self.present = bool(entries)
        if entries:
            rows, tokens, values = zip(*entries, strict=True)
            self._at = mx.array(rows), mx.array(tokens)
            self._values = mx.array(values, dtype=mx.float32)

    def added(self, logits: mx.array) -> mx.array:
        return logits.at[self._at].add(self._values)


def without_early_stops(logits: mx.array, states: list[RowState]) -> mx.array:
    """`logits` with the stop ids of rows that have not `min_tokens` tokens yet at minus infinity."""
    vocab = logits.shape[-1]
    banned = [
        (i, token)
        for i, state in enumerate(states)
        if state.position < state.row.min_tokens
        for token in state.row.stop_ids
        if 0 <= token < vocab
    ]
    if not banned:
        return logits
    rows, tokens = zip(*banned, strict=True)
    return _assigned(logits, mx.array(rows), mx.array(tokens), mx.array(-float("inf")))
