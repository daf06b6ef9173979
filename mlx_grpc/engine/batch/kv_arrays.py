"""Arrays of KV caches: rows put together, and rows taken out.

An array is [2 or 1 (keys and values, or one of them), rows, heads, room for tokens, size of a head].
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import mlx.core as mx

STEP_TOKENS = 256
"""The room for tokens is a multiple of this."""
ONE = 1
"""What is multiplied by it is copied. A slice would share its memory, and the whole batch were copied when the next
token is written."""


class Part(NamedTuple):
    """Tokens begin to end of some rows, and where the first of them goes. array: as one of a cache's, or None."""

    array: mx.array | None
    rows: int
    begin: int
    end: int
    place: int


def joined(keys: mx.array, values: mx.array) -> list[mx.array]:
    """As a cache holds them. keys and values: [rows, heads, tokens, size of a head]."""
    if keys.shape == values.shape and keys.dtype == values.dtype:
        return [mx.stack([keys, values])]
    return [keys[None], values[None]]


def room_for(tokens: int) -> int:
    """Whole steps, one at least."""
    return max(1, -(-tokens // STEP_TOKENS)) * STEP_TOKENS


def placed_rows(parts: Sequence[Part], tokens: int, like: mx.array) -> mx.array:
    """The parts' rows one after the other, each with room for so many tokens."""
    both, _, heads, _, size = like.shape
    placed = mx.zeros((both, sum(part.rows for part in parts), heads, room_for(tokens), size), like.dtype)
    first = 0
    for part in parts:
        if part.array is not None and part.end > part.begin:
            places = slice(part.place, part.place + part.end - part.begin)
            placed[:, first : first + part.rows, :, places] = part.array[:, :, :, part.begin : part.end]
        first += part.rows
    return placed


def kept_rows(array: mx.array, rows: Sequence[int], begin: int, room: int) -> mx.array:
    """These rows from one place on, copied in runs of neighbours: MLX's gather goes by single elements."""
    starts = [place for place in range(len(rows)) if place == 0 or rows[place] != rows[place - 1] + 1]
    runs = [
        array[:, rows[start] : rows[end - 1] + 1, :, begin : begin + room]
        for start, end in pairwise([*starts, len(rows)])
    ]
    kept = mx.concatenate(runs, axis=1) if len(runs) > 1 else runs[0] * ONE
    missing = room - kept.shape[3]
    return mx.pad(kept, [(0, 0)] * 3 + [(0, missing), (0, 0)]) if missing else kept
