"""The cache of a layer whose tokens see all that came before: mlx_lm's KVCache for a batch of rows.

It has what mlx_lm's models call: `offset`, `make_mask`, `update_and_fetch`, and for prompts of different lengths
`prepare` and `finalize`. Keys and values that are alike lie in one array, so that a change of the rows, and a step that
has them side by side, moves them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from mlx_grpc.engine.batch.caches.arrays import RowArrays, room_for
from mlx_grpc.engine.batch.caches.shared import SharedArrays


class RowsKVCache:
    """The keys and values of one layer."""

    def __init__(self, held: RowArrays, shared: SharedArrays) -> None:
        self.held = held
        self._shared = shared
        self._right_padding: list[int] | None = None

    @classmethod
    def merge(cls, rows: Sequence[KVCache], shared: SharedArrays) -> RowsKVCache:
        """Rows with what their own caches hold."""
        tokens = [None if row.keys is None else (row.keys, row.values, row.offset) for row in rows]
        return cls(
            RowArrays.of([row and (row[0][..., : row[2], :], row[1][..., : row[2], :]) for row in tokens]), shared
        )

    @property
    def keys(self) -> mx.array | None:
        """[rows, heads, room for tokens, size of a head], or None before the first token. A view: without the dots MLX
        would gather."""
        return self.held.arrays[0][0, ...] if self.held.arrays else None

    @property
    def values(self) -> mx.array | None:
        """As `keys`."""
        return self.held.arrays[-1][-1, ...] if self.held.arrays else None

    @property
    def pairs(self) -> mx.array | None:
        """Keys and values in one: [2, rows, heads, room for tokens, size of a head]; None where they are not."""
        return self.held.arrays[0] if len(self.held.arrays) == 1 else None

    @property
    def nbytes(self) -> int:
        """What they take."""
        return self.held.nbytes

    @property
    def state(self) -> tuple[mx.array, ...]:
        """The arrays, for mx.eval."""
        return tuple(self.held.arrays)

    @property
    def _lengths(self) -> list[int]:
        return [self.held.end - padding for padding in self.held.paddings]

    @property
    def offset(self) -> mx.array:
        """[rows] int32: how many tokens each row has, which is the next one's position."""
        return self._shared.integers("offset", self._lengths)

    @property
    def left_padding(self) -> mx.array:
        """[rows] int32: where each row's tokens begin."""
        return self._shared.integers("left_padding", self.held.paddings)

    def size(self) -> int:
        """Tokens of the longest row, with the padding before the others'."""
        return self.held.end

    def empty(self) -> bool:
        """Whether there was no token yet."""
        return not self.held.arrays

    def is_trimmable(self) -> bool:
        """Only one row's own cache is."""
        return False

    def next_places(self, rotated: int, others: int) -> tuple[mx.array, mx.array, mx.array]:
        """Of each row's next token, int32: [rows · (rotated + others)] its position for heads that are rotated, and 0
        for the others; [rows] where the row's tokens begin; [1] where they end with it."""
        lengths, end, marks = self._lengths, self.held.end + 1, [1] * rotated + [0] * others
        offsets = self._shared.array(
            "head_offsets", (lengths, marks), lambda: (self.offset[:, None] * mx.array(marks)).reshape(-1)
        )
        return offsets, self.left_padding, self._shared.integers("end", [end])

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> Any:  # noqa: N803
        """For N new tokens; N is mlx_lm's name for it. See `SharedArrays.mask`."""
        held = self.held
        return self._shared.mask(N, held.end + N, held.paddings, window_size, as_array=return_array)

    def paddings_of(self, mask: Any) -> list[int] | None:
        """See `SharedArrays.paddings_of`."""
        return self._shared.paddings_of(mask)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Add each row's next tokens; gives all that there are then."""
        self.held.append(keys, values)
        return self.keys_and_values()

    def keys_and_values(self) -> tuple[mx.array, mx.array]:
        """[rows, heads, tokens, size of a head], padding on the left included."""
        arrays, end = self.held.arrays, self.held.end
        return arrays[0][0, ..., :end, :], arrays[-1][-1, ..., :end, :]

    def add_pairs(self, pairs: mx.array) -> mx.array:
        """Add each row's next tokens: [2, rows, heads, tokens, size of a head]; gives `pairs`, room included."""
        return self.held.append_pairs(pairs)

    def room_with(self, tokens: int) -> int:
        """The room for tokens that there is when so many have been added."""
        return max(self.held.room, room_for(self.held.end + tokens))

    def prepare(self, *, right_padding: Sequence[int], **_: Any) -> None:
        """The next tokens are padded on the right, until `finalize`."""
        self._right_padding = list(right_padding)

    def finalize(self) -> None:
        """Move the padding of the last tokens to the left."""
        if self._right_padding is not None:
            self.held.shift_right(self._right_padding)
            self._right_padding = None

    def filter(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order."""
        self.held.keep(rows)

    def extend(self, others: Sequence[RowsKVCache]) -> None:
        """Take the rows of others in, after these."""
        self.held.extend([other.held for other in others])

    def own_cache(self, row: int) -> KVCache:
        """One row's cache, without its keys and values."""
        cache = KVCache()
        cache.offset = self._lengths[row]
        return cache

    def row_arrays(self, row: int) -> list[tuple[tuple[str, ...], mx.array]]:
        """What goes into it. See `RowArrays.views`."""
        return self.held.views(row)
