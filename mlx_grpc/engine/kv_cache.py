"""mlx_lm's KV cache of a batch of rows, bent to rows that come and go all the time.

Rows are padded on the left to end at the same place. How far is known here on the host, so that nothing waits for the
accelerator when the batch changes, and all layers share one array of positions. Without padding there is no mask, which
lets MLX use its fused attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import mlx.core as mx
from mlx_lm.models.cache import BatchKVCache, KVCache, dynamic_roll

STEP_TOKENS = 256
"""The room for tokens grows by this."""
_ONE = 1
"""What is multiplied by it is copied. A slice would share its memory, and the whole batch were copied when the next
token is written."""


def known_on_host(caches: Sequence[Any]) -> list[Any]:
    """The caches of all layers, those of plain attention as `RowsKVCache`."""
    positions = _Shared()
    return [RowsKVCache(cache, positions) if type(cache) is BatchKVCache else cache for cache in caches]


def packed(caches: list[Any]) -> list[Any]:
    """One row's caches of all layers, copied: what is alike goes into one piece of memory. With a piece for each array
    a GPU's step in which nine rows ended took 50 ms, with one 20."""
    places = [(cache, name) for cache in caches if type(cache) is KVCache for name in ("keys", "values")]
    alike: dict[Any, list[tuple[KVCache, str]]] = {}
    for cache, name in places:
        array = getattr(cache, name)
        alike.setdefault((array.shape, array.dtype), []).append((cache, name))
    for group in alike.values():
        arrays = [getattr(cache, name) for cache, name in group]
        piece = mx.concatenate(arrays) if len(arrays) > 1 else arrays[0] * _ONE
        for place, (cache, name) in enumerate(group):
            setattr(cache, name, piece[place : place + 1])
    return caches


class _Shared:
    """The last array made, for the layers that ask for the same."""

    def __init__(self) -> None:
        self._values: list[int] = []
        self._array = mx.array(self._values, dtype=mx.int32)
        self.mask: tuple[mx.array, list[int]] | None = None
        """The last mask that says no more than what is causal and what is padding, and the padding."""

    def array(self, values: list[int]) -> mx.array:
        if values != self._values:
            self._values, self._array = values, mx.array(values, dtype=mx.int32)
        return self._array


class _Part(NamedTuple):
    """Tokens begin to end of some rows, and where the first of them goes. array: as a cache's keys, or None."""

    array: mx.array | None
    rows: int
    begin: int
    end: int
    place: int


class RowsKVCache(BatchKVCache):  # type: ignore[misc]
    """keys and values: [rows, heads, room for tokens, size of a head], or None before the first token."""

    def __init__(self, cache: BatchKVCache, positions: _Shared) -> None:
        self.keys: mx.array | None = cache.keys
        self.values: mx.array | None = cache.values
        self._paddings: list[int] = cache.left_padding.tolist()
        self._idx: int = cache._idx
        self._right_padding: list[int] | None = None
        self._positions = positions

    @property
    def offset(self) -> mx.array:
        """[rows] int32: how many tokens each row has, which is the next one's position."""
        return self._positions.array([self._idx - padding for padding in self._paddings])

    @property
    def left_padding(self) -> mx.array:
        """[rows] int32."""
        return mx.array(self._paddings, dtype=mx.int32)

    @property
    def state(self) -> tuple[mx.array, ...]:
        """What there is to compute."""
        return () if self.keys is None or self.values is None else (self.keys, self.values)

    def is_trimmable(self) -> bool:
        """Only what `extract` gives is."""
        return False

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> Any:  # noqa: N803
        """For N new tokens; N is mlx_lm's name for it. None or "causal" where MLX needs no array."""
        if any(self._paddings) or return_array or window_size is not None:
            mask = super().make_mask(N, return_array, window_size=window_size)
            if window_size is None:
                self._positions.mask = mask, list(self._paddings)
            return mask
        return None if N == 1 else "causal"

    def paddings_of(self, mask: Any) -> list[int] | None:
        """Where each row's tokens begin, if `mask` is the last that a layer made, and says that and what is causal."""
        made = self._positions.mask
        return made[1] if made is not None and made[0] is mask else None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Add each row's next tokens; gives all that there are then."""
        rows, start, end = len(self._paddings), self._idx, self._idx + keys.shape[2]
        if self.keys is None or end > self.keys.shape[2]:
            room = -(-end // STEP_TOKENS) * STEP_TOKENS
            self.keys = _placed([_Part(self.keys, rows, 0, start, 0)], room, keys)
            self.values = _placed([_Part(self.values, rows, 0, start, 0)], room, values)
        assert self.keys is not None
        assert self.values is not None
        self.keys[..., start:end, :] = keys
        self.values[..., start:end, :] = values
        self._idx = end
        return self.keys[..., :end, :], self.values[..., :end, :]

    def prepare(self, *, right_padding: Sequence[int], **_: Any) -> None:
        """The next tokens are padded on the right, until `finalize`."""
        self._right_padding = list(right_padding)

    def finalize(self) -> None:
        """Move the padding of the last tokens to the left."""
        if self._right_padding is None:
            return
        shifts = mx.array(self._right_padding)[:, None]
        self.keys, self.values = (dynamic_roll(array, shifts, axis=2) for array in self.state)
        self._paddings = [left + right for left, right in zip(self._paddings, self._right_padding, strict=True)]
        self._right_padding = None

    def filter(self, batch_indices: Sequence[int]) -> None:
        """Keep these rows, in this order."""
        keep = list(batch_indices)
        self._paddings = [self._paddings[row] for row in keep]
        if self.keys is None:
            return
        unused = min(self._paddings)
        self.keys, self.values = (_kept(array[..., unused:, :], keep) for array in self.state)
        self._idx -= unused
        self._paddings = [padding - unused for padding in self._paddings]

    def extend(self, other: RowsKVCache) -> None:
        """Take another's rows in, after these. What all rows of one have of padding is left behind."""
        caches = [(cache, min(cache._paddings)) for cache in (self, other)]
        end = max(cache._idx - unused for cache, unused in caches)
        paddings = [padding + end - cache._idx for cache, _ in caches for padding in cache._paddings]
        room = max([end, *(cache.keys.shape[2] for cache, _ in caches if cache.keys is not None)])
        for name in ("keys", "values"):
            parts = [
                _Part(getattr(cache, name), len(cache._paddings), unused, cache._idx, end - (cache._idx - unused))
                for cache, unused in caches
            ]
            like = next((part.array for part in parts if part.array is not None), None)
            setattr(self, name, None if like is None else _placed(parts, room, like))
        self._idx, self._paddings = end, paddings

    def extract(self, idx: int) -> KVCache:
        """One row's tokens as a cache of its own. It shares its memory with this one until it is `packed`."""
        cache, first = KVCache(), self._paddings[idx]
        cache.keys, cache.values = (array[idx : idx + 1, :, first : self._idx] for array in self.state)
        cache.offset = self._idx - first
        return cache


def _placed(parts: Sequence[_Part], room: int, like: mx.array) -> mx.array:
    """The parts' rows one after the other, each with so much room for tokens."""
    placed = mx.zeros((sum(part.rows for part in parts), like.shape[1], room, like.shape[3]), like.dtype)
    first = 0
    for part in parts:
        if part.array is not None and part.end > part.begin:
            places = slice(part.place, part.place + part.end - part.begin)
            placed[first : first + part.rows, :, places] = part.array[:, :, part.begin : part.end]
        first += part.rows
    return placed


def _kept(array: mx.array, rows: Sequence[int]) -> mx.array:
    """These rows, copied in runs of neighbours: MLX's gather goes by single elements."""
    starts = [place for place in range(len(rows)) if place == 0 or rows[place] != rows[place - 1] + 1]
    runs = [array[rows[start] : rows[end - 1] + 1] for start, end in pairwise([*starts, len(rows)])]
    return mx.concatenate(runs) if len(runs) > 1 else runs[0] * _ONE
