"""Keys and values of one layer for a batch of rows, as arrays that rows are put into and taken out of.

Every row ends at the same place, so shorter rows are padded on the left. Where each row begins is known on the host:
nothing waits for the accelerator when the batch changes.

An array is [2 or 1 (keys and values, or one of them), rows, heads, room for tokens, size of a head].
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import mlx.core as mx
from mlx_lm.models.cache import dynamic_roll

STEP_TOKENS = 256
"""The room for tokens is a multiple of this."""
ONE = 1
"""What is multiplied by it is copied. A slice would share its memory, and the whole batch would be copied when the next
token is written."""


class Part(NamedTuple):
    """Tokens begin to end of some rows, and where the first of them goes. array: as one of a cache's, or None."""

    array: mx.array | None
    rows: int
    begin: int
    end: int
    place: int


class RowArrays:
    """One layer's keys and values. `arrays` holds none before the first token, then one of both, or one of each where
    their shapes or types differ."""

    def __init__(self, arrays: list[mx.array], paddings: list[int], end: int) -> None:
        self.arrays = arrays
        self.paddings = paddings
        """Where each row's first token is."""
        self.end = end
        """Where all rows' next token goes."""

    @classmethod
    def of(cls, rows: Sequence[tuple[mx.array, mx.array] | None]) -> RowArrays:
        """Rows with the tokens that they have. keys and values of each: [1, heads, tokens, size of a head], or None."""
        held = [None if row is None else joined(*row) for row in rows]
        lengths = [0 if row is None else row[0].shape[3] for row in held]
        end = max(lengths)
        like = next((row for row in held if row is not None), [])
        arrays = []
        for number, array in enumerate(like):
            parts = [
                Part(None if row is None else row[number], 1, 0, length, end - length)
                for row, length in zip(held, lengths, strict=True)
            ]
            arrays.append(placed_rows(parts, end, array))
        return cls(arrays, [end - length for length in lengths], end)

    @property
    def room(self) -> int:
        """How many tokens the arrays have room for."""
        return self.arrays[0].shape[3] if self.arrays else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, room included."""
        return sum(array.nbytes for array in self.arrays)

    def append(self, keys: mx.array, values: mx.array) -> None:
        """Add each row's next tokens. keys and values: [rows, heads, tokens, size of a head]."""
        if not self.arrays:
            self.arrays = joined(keys[..., :0, :], values[..., :0, :])
        self.make_room(room_for(self.end + keys.shape[2]))
        places = slice(self.end, self.end + keys.shape[2])
        self.arrays[0][0, ..., places, :] = keys
        self.arrays[-1][-1, ..., places, :] = values
        self.end = places.stop

    def append_pairs(self, pairs: mx.array) -> mx.array:
        """Add each row's next tokens: [2, rows, heads, tokens, size of a head]; gives the array of both."""
        self.make_room(room_for(self.end + pairs.shape[3]))
        (array,) = self.arrays
        array[..., self.end : self.end + pairs.shape[3], :] = pairs
        self.end += pairs.shape[3]
        return array

    def make_room(self, room: int) -> None:
        """Have room for so many tokens, those that are there included."""
        if room > self.room:
            parts = [Part(array, len(self.paddings), 0, self.end, 0) for array in self.arrays]
            self.arrays = [placed_rows([part], room, array) for part, array in zip(parts, self.arrays, strict=True)]

    def drop_front(self, tokens: int, room: int) -> None:
        """Forget the first places of all rows, and have room for so many tokens."""
        rows = range(len(self.paddings))
        self.arrays = [kept_rows(array, rows, tokens, room) for array in self.arrays]
        self.paddings = [max(0, padding - tokens) for padding in self.paddings]
        self.end -= tokens

    def shift_right(self, places: Sequence[int]) -> None:
        """Move each row's tokens to the right by so many places, over the padding behind them."""
        shifts = mx.array(list(places))[None, :, None]
        self.arrays = [dynamic_roll(array, shifts, axis=3) for array in self.arrays]
        self.paddings = [padding + moved for padding, moved in zip(self.paddings, places, strict=True)]

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order, and no place that is padding in all of them."""
        self.paddings = [self.paddings[row] for row in rows]
        if not self.arrays:
            return
        unused = min(self.paddings)
        room = room_for(self.end - unused)
        self.arrays = [kept_rows(array, rows, unused, room) for array in self.arrays]
        self.end -= unused
        self.paddings = [padding - unused for padding in self.paddings]

    def extend(self, others: Sequence[RowArrays]) -> None:
        """Take the rows of others in, after these. Places that are padding in all rows of one are left behind."""
        helds = [(held, min(held.paddings)) for held in (self, *others)]
        end = max(held.end - unused for held, unused in helds)
        paddings = [padding + end - held.end for held, _ in helds for padding in held.paddings]
        room = max([end, *(held.room for held, _ in helds)])
        arrays = []
        for place, like in enumerate(next((held.arrays for held, _ in helds if held.arrays), [])):
            parts = [
                Part(
                    held.arrays[place] if held.arrays else None,
                    len(held.paddings),
                    unused,
                    held.end,
                    end - (held.end - unused),
                )
                for held, unused in helds
            ]
            arrays.append(placed_rows(parts, room, like))
        self.arrays, self.end, self.paddings = arrays, end, paddings

    def views(self, row: int, most_tokens: int | None = None) -> list[tuple[tuple[str, ...], mx.array]]:
        """Views of a row's tokens, the last `most_tokens` of them: what of "keys" and "values" each holds, and
        [so many, heads, tokens, size of a head]."""
        begin = self.paddings[row] if most_tokens is None else max(self.paddings[row], self.end - most_tokens)
        both = [("keys", "values")] if len(self.arrays) == 1 else [("keys",), ("values",)]
        return list(zip(both, [array[:, row, :, begin : self.end] for array in self.arrays], strict=False))


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
