"""The cache of a layer whose tokens see a window of those before: mlx_lm's RotatingKVCache for a batch of rows.

mlx_lm writes over the oldest token. Here tokens stay in their order, at the end of the row as everywhere else, and the
oldest are dropped together when the room is full, once in STEP_TOKENS steps. So a window that has wrapped, rows of
different lengths and a padded chunk need no rules of their own. The price is up to STEP_TOKENS places more than the
window has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import RotatingKVCache

from mlx_grpc.engine.batch.caches.arrays import STEP_TOKENS, RowArrays, room_for
from mlx_grpc.engine.batch.caches.shared import SharedArrays


class RowsWindowCache:
    """The keys and values of one layer. `window`: how many tokens a token sees, itself included."""

    def __init__(self, held: RowArrays, lengths: list[int], window: int, shared: SharedArrays) -> None:
        self.window = window
        self.held = held
        self._lengths = lengths
        """How many tokens each row has had."""
        self._shared = shared
        self._seen_from = 0
        """Where the keys begin that the last step's tokens saw."""
        self._right_padding: list[int] | None = None

    @classmethod
    def merge(cls, rows: Sequence[RotatingKVCache], shared: SharedArrays) -> RowsWindowCache:
        """Rows with what their own caches hold. Raises ValueError for caches that differ, or that keep their first
        tokens for ever."""
        windows = {row.max_size for row in rows}
        if len(windows) > 1 or any(row.keep for row in rows):
            raise ValueError("windows of different sizes, or with tokens that are kept, cannot be batched")
        held = RowArrays.of([None if row.keys is None else _in_order(row) for row in rows])
        return cls(held, [row.offset for row in rows], windows.pop(), shared)

    @property
    def max_size(self) -> int:
        """mlx_lm's name for the window."""
        return self.window

    @property
    def nbytes(self) -> int:
        """What they take."""
        return self.held.nbytes

    @property
    def state(self) -> tuple[mx.array, ...]:
        """The arrays, for mx.eval."""
        return tuple(self.held.arrays)

    @property
    def offset(self) -> mx.array:
        """[rows] int32: how many tokens each row has had, which is the next one's position."""
        return self._shared.integers("offset", self._lengths)

    def size(self) -> int:
        """Tokens that are still seen, of the longest row."""
        return min(max(self._lengths), self.window)

    def empty(self) -> bool:
        """Whether there was no token yet."""
        return not self.held.arrays

    def is_trimmable(self) -> bool:
        """Only one row's own cache may be."""
        return False

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> Any:  # noqa: N803
        """For N new tokens; N is mlx_lm's name for it. See `SharedArrays.mask`."""
        begin = self._begin(self.held.end)
        paddings = [max(0, padding - begin) for padding in self.held.paddings]
        window = min(self.window, window_size or self.window)
        return self._shared.mask(N, self.held.end - begin + N, paddings, window, as_array=return_array)

    def paddings_of(self, mask: Any) -> list[int] | None:
        """See `SharedArrays.paddings_of`."""
        return self._shared.paddings_of(mask)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Add each row's next tokens; gives those that some of the new ones see."""
        held, tokens = self.held, keys.shape[2]
        unseen = self._begin(held.end)
        if held.end + tokens > held.room and unseen:
            held.drop_front(unseen, room_for(held.end - unseen + tokens + STEP_TOKENS - 1))
        self._seen_from = self._begin(held.end)
        held.append(keys, values)
        self._lengths = [length + tokens for length in self._lengths]
        return self.keys_and_values()

    def keys_and_values(self) -> tuple[mx.array, mx.array]:
        """What `update_and_fetch` gave last, for layers that share it: [rows, heads, tokens, size of a head]."""
        arrays, seen = self.held.arrays, slice(self._seen_from, self.held.end)
        return arrays[0][0, ..., seen, :], arrays[-1][-1, ..., seen, :]

    def prepare(self, *, lengths: Sequence[int], right_padding: Sequence[int]) -> None:
        """The next tokens, so many of each row, are padded on the right, until `finalize`."""
        self._right_padding = list(right_padding)

    def finalize(self) -> None:
        """Move the padding of the last tokens to the left."""
        if self._right_padding is not None:
            self.held.shift_right(self._right_padding)
            self._lengths = [
                length - missing for length, missing in zip(self._lengths, self._right_padding, strict=True)
            ]
            self._right_padding = None

    def filter(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order."""
        self.held.keep(rows)
        self._lengths = [self._lengths[row] for row in rows]

    def extend(self, others: Sequence[RowsWindowCache]) -> None:
        """Take the rows of others in, after these."""
        self.held.extend([other.held for other in others])
        self._lengths = [length for cache in (self, *others) for length in cache._lengths]

    def own_cache(self, row: int) -> RotatingKVCache:
        """One row's cache, without its keys and values."""
        cache = RotatingKVCache(self.window)
        cache.offset = self._lengths[row]
        cache._idx = min(cache.offset, self.window)
        return cache

    def row_arrays(self, row: int) -> list[tuple[tuple[str, ...], mx.array]]:
        """What goes into it. See `RowArrays.views`."""
        return self.held.views(row, self.window)

    def _begin(self, end: int) -> int:
        """The first place that a token at `end` sees."""
        return max(0, end - (self.window - 1))


def _in_order(cache: RotatingKVCache) -> tuple[mx.array, mx.array]:
    """The last tokens of one row's window, the oldest first."""
    keys, values = cache._temporal_order(cache.keys), cache._temporal_order(cache.values)
    begin = keys.shape[2] - cache.size()
    return keys[..., begin:, :], values[..., begin:, :]
