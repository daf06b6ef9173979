"""mlx_lm's KV cache of a batch of rows, bent to rows that come and go all the time.

Rows are padded on the left to end at the same place. How far is known here on the host, so that nothing waits for the
accelerator when the batch changes, and all layers share one array of positions. Without padding there is no mask, which
lets MLX use its fused attention. Keys and values that are alike lie in one array, so that a change of the rows, and a
step that has them side by side, moves them together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import BatchKVCache, KVCache, dynamic_roll

from mlx_grpc.engine.batch.kv_arrays import ONE, Part, joined, kept_rows, placed_rows, room_for


def known_on_host(caches: Sequence[Any]) -> list[Any]:
    """The caches of all layers, those of plain attention as `RowsKVCache`."""
    shared = _Shared()
    return [RowsKVCache(cache, shared) if type(cache) is BatchKVCache else cache for cache in caches]


def row_of(caches: Sequence[Any], row: int) -> list[Any]:
    """One row's caches of all layers, copied: what is alike goes into one piece of memory. With a piece for each array
    a GPU's step in which nine rows ended took 50 ms, with one 20."""
    alone = [KVCache() if type(cache) is RowsKVCache else cache.extract(row) for cache in caches]
    alike: dict[Any, list[tuple[KVCache, tuple[str, ...], mx.array]]] = {}
    for cache, own in zip(caches, alone, strict=True):
        if type(cache) is RowsKVCache:
            own.offset = cache.length(row)
            for names, array in cache.row_arrays(row):
                alike.setdefault((array.shape, array.dtype), []).append((own, names, array))
    for group in alike.values():
        arrays = [array for _, _, array in group]
        piece, first = mx.concatenate(arrays) if len(arrays) > 1 else arrays[0] * ONE, 0
        for own, names, _ in group:
            for place, name in enumerate(names, first):
                setattr(own, name, piece[place : place + 1])
            first += len(names)
    return alone


class _Shared:
    """Arrays that all layers ask for in a step, each made once."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Any, mx.array]] = {}
        self.mask: tuple[mx.array, list[int]] | None = None
        """The last mask that says no more than what is causal and what is padding, and the padding."""

    def array(self, name: str, of: Any, make: Callable[[], mx.array]) -> mx.array:
        """The last one of this name, if it was made of the same."""
        made = self._made.get(name)
        if made is None or made[0] != of:
            made = self._made[name] = (of, make())
        return made[1]


class RowsKVCache(BatchKVCache):  # type: ignore[misc]
    """The keys and values of one layer.

    `_arrays` holds none before the first token, then one of both, or one of each where they differ:
    [2 or 1, rows, heads, room for tokens, size of a head].
    """

    def __init__(self, cache: BatchKVCache, shared: _Shared) -> None:
        self._arrays: list[mx.array] = [] if cache.keys is None else joined(cache.keys, cache.values)
        self._paddings: list[int] = cache.left_padding.tolist()
        self._idx: int = cache._idx
        self._right_padding: list[int] | None = None
        self._shared = shared

    @property
    def keys(self) -> mx.array | None:
        """[rows, heads, room for tokens, size of a head], or None before the first token. A view: without the dots MLX
        would gather."""
        return self._arrays[0][0, ...] if self._arrays else None

    @property
    def values(self) -> mx.array | None:
        """As `keys`."""
        return self._arrays[-1][-1, ...] if self._arrays else None

    @property
    def pairs(self) -> mx.array | None:
        """Keys and values in one: [2, rows, heads, room for tokens, size of a head]; None where they are not."""
        return self._arrays[0] if len(self._arrays) == 1 else None

    @property
    def nbytes(self) -> int:
        """What they take."""
        return sum(array.nbytes for array in self._arrays)

    @property
    def _lengths(self) -> list[int]:
        return [self._idx - padding for padding in self._paddings]

    @property
    def offset(self) -> mx.array:
        """[rows] int32: how many tokens each row has, which is the next one's position."""
        lengths = self._lengths
        return self._shared.array("offset", lengths, lambda: mx.array(lengths, dtype=mx.int32))

    @property
    def left_padding(self) -> mx.array:
        """[rows] int32: where each row's tokens begin."""
        paddings = list(self._paddings)
        return self._shared.array("left_padding", paddings, lambda: mx.array(paddings, dtype=mx.int32))

    def next_places(self, rotated: int, others: int) -> tuple[mx.array, mx.array, mx.array]:
        """Of each row's next token, int32: [rows · (rotated + others)] its position for heads that are rotated, and 0
        for the others; [rows] where the row's tokens begin; [1] where they end with it."""
        lengths, end, marks = self._lengths, self._idx + 1, [1] * rotated + [0] * others
        offsets = self._shared.array(
            "head_offsets", (lengths, marks), lambda: (self.offset[:, None] * mx.array(marks)).reshape(-1)
        )
        return offsets, self.left_padding, self._shared.array("end", end, lambda: mx.array([end], dtype=mx.int32))

    @property
    def state(self) -> tuple[mx.array, ...]:
        """What there is to compute."""
        return tuple(self._arrays)

    def is_trimmable(self) -> bool:
        """Only what `extract` gives is."""
        return False

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> Any:  # noqa: N803
        """For N new tokens; N is mlx_lm's name for it. None or "causal" where MLX needs no array."""
        if any(self._paddings) or return_array or window_size is not None:
            mask = super().make_mask(N, return_array, window_size=window_size)
            if window_size is None:
                self._shared.mask = mask, list(self._paddings)
            return mask
        return None if N == 1 else "causal"

    def paddings_of(self, mask: Any) -> list[int] | None:
        """Where each row's tokens begin, if `mask` is the last that a layer made, and says that and what is causal."""
        made = self._shared.mask
        return made[1] if made is not None and made[0] is mask else None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Add each row's next tokens; gives all that there are then."""
        if not self._arrays:
            self._arrays = joined(keys[..., :0, :], values[..., :0, :])
        self._make_room(keys.shape[2])
        places = slice(self._idx, self._idx + keys.shape[2])
        self._arrays[0][0, ..., places, :] = keys
        self._arrays[-1][-1, ..., places, :] = values
        self._idx = places.stop
        return self._arrays[0][0, ..., : self._idx, :], self._arrays[-1][-1, ..., : self._idx, :]

    def add_pairs(self, pairs: mx.array) -> mx.array:
        """Add each row's next tokens: [2, rows, heads, tokens, size of a head]; gives `pairs`, room included."""
        self._make_room(pairs.shape[3])
        (array,) = self._arrays
        array[..., self._idx : self._idx + pairs.shape[3], :] = pairs
        self._idx += pairs.shape[3]
        return array

    def room_with(self, tokens: int) -> int:
        """The room for tokens that there is when so many have been added."""
        return max(self._arrays[0].shape[3], room_for(self._idx + tokens))

    def _make_room(self, tokens: int) -> None:
        room, rows = self.room_with(tokens), len(self._paddings)
        if room > self._arrays[0].shape[3]:
            parts = [Part(array, rows, 0, self._idx, 0) for array in self._arrays]
            self._arrays = [placed_rows([part], room, array) for part, array in zip(parts, self._arrays, strict=True)]

    def prepare(self, *, right_padding: Sequence[int], **_: Any) -> None:
        """The next tokens are padded on the right, until `finalize`."""
        self._right_padding = list(right_padding)

    def finalize(self) -> None:
        """Move the padding of the last tokens to the left."""
        if self._right_padding is None:
            return
        shifts = mx.array(self._right_padding)[None, :, None]
        self._arrays = [dynamic_roll(array, shifts, axis=3) for array in self._arrays]
        self._paddings = [left + right for left, right in zip(self._paddings, self._right_padding, strict=True)]
        self._right_padding = None

    def filter(self, batch_indices: Sequence[int]) -> None:
        """Keep these rows, in this order."""
        keep = list(batch_indices)
        self._paddings = [self._paddings[row] for row in keep]
        if not self._arrays:
            return
        unused = min(self._paddings)
        room = room_for(self._idx - unused)
        self._arrays = [kept_rows(array, keep, unused, room) for array in self._arrays]
        self._idx -= unused
        self._paddings = [padding - unused for padding in self._paddings]

    def extend(self, other: RowsKVCache) -> None:
        """Take another's rows in, after these. What all rows of one have of padding is left behind."""
        caches = [(cache, min(cache._paddings)) for cache in (self, other)]
        end = max(cache._idx - unused for cache, unused in caches)
        paddings = [padding + end - cache._idx for cache, _ in caches for padding in cache._paddings]
        room = max([end, *(array.shape[3] for cache, _ in caches for array in cache._arrays)])
        arrays = []
        for place, like in enumerate(self._arrays or other._arrays):
            parts = [
                Part(
                    cache._arrays[place] if cache._arrays else None,
                    len(cache._paddings),
                    unused,
                    cache._idx,
                    end - (cache._idx - unused),
                )
                for cache, unused in caches
            ]
            arrays.append(placed_rows(parts, room, like))
        self._arrays, self._idx, self._paddings = arrays, end, paddings

    def length(self, row: int) -> int:
        """How many tokens it has."""
        return self._idx - self._paddings[row]

    def row_arrays(self, row: int) -> list[tuple[tuple[str, ...], mx.array]]:
        """Views of a row's tokens: what of "keys" and "values" each holds, and [so many, heads, tokens, size]."""
        both = [("keys", "values")] if len(self._arrays) == 1 else [("keys",), ("values",)]
        views = [array[:, row, :, self._paddings[row] : self._idx] for array in self._arrays]
        return list(zip(both, views, strict=False))

    def extract(self, idx: int) -> KVCache:
        """One row as a cache of its own."""
        cache: KVCache = row_of([self], idx)[0]
        return cache
