"""The caches of all layers for a batch of rows: rows put together, joined, dropped and taken out.

Plain attention and sliding windows have caches of ours. All other kinds, and lists of caches, keep mlx_lm's own
merging.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache

from mlx_grpc.engine.batch.caches.arrays import ONE
from mlx_grpc.engine.batch.caches.plain import RowsKVCache
from mlx_grpc.engine.batch.caches.shared import SharedArrays
from mlx_grpc.engine.batch.caches.window import RowsWindowCache

Caches = list[Any]
"""One cache a layer."""
OWN = (RowsKVCache, RowsWindowCache)


def batched(rows: Sequence[Caches], shared: SharedArrays | None = None) -> Caches:
    """The caches of single rows as those of a batch. Raises ValueError for a kind that cannot be batched."""
    shared = shared or SharedArrays()
    return [_batched_layer(layer, shared) for layer in zip(*rows, strict=True)]


def _batched_layer(rows: Sequence[Any], shared: SharedArrays) -> Any:
    kind = type(rows[0])
    if kind is KVCache:
        return RowsKVCache.merge(rows, shared)
    if kind is RotatingKVCache:
        return RowsWindowCache.merge(rows, shared)
    if kind is CacheList:
        # Models set keys and values of the plain caches in a list themselves: those stay mlx_lm's.
        lists = zip(*(row.caches for row in rows), strict=True)
        return CacheList(*(_batched_part(part, shared) for part in lists))
    if not hasattr(kind, "merge"):
        raise ValueError(f"the model's {kind.__name__} cannot be batched")
    return kind.merge(rows)


def _batched_part(rows: Sequence[Any], shared: SharedArrays) -> Any:
    return rows[0].merge(rows) if type(rows[0]) is KVCache else _batched_layer(rows, shared)


def extend(caches: Caches, others: Sequence[Caches]) -> None:
    """Let the rows of other batches in, after these."""
    for cache, *more in zip(caches, *others, strict=True):
        _extend_layer(cache, more)


def _extend_layer(cache: Any, others: Sequence[Any]) -> None:
    if isinstance(cache, OWN):
        cache.extend(others)
    elif isinstance(cache, CacheList):
        for part, *more in zip(cache.caches, *(other.caches for other in others), strict=True):
            _extend_layer(part, more)
    else:
        for other in others:
            if isinstance(cache, ArraysCache):
                _align(cache, other)
            cache.extend(other)


def _align(one: ArraysCache, other: ArraysCache) -> None:
    """A state that holds the last tokens is shorter in a row that has had fewer: the places before its first token are
    zeros, as they are in a state that is made with all its places."""
    for place, (mine, theirs) in enumerate(zip(one.cache, other.cache, strict=True)):
        if mine is None or theirs is None or mine.ndim < 2 or mine.shape[1] == theirs.shape[1]:
            continue
        shorter, array = (one, mine) if mine.shape[1] < theirs.shape[1] else (other, theirs)
        missing = abs(mine.shape[1] - theirs.shape[1])
        shorter.cache[place] = mx.pad(array, [(0, 0), (missing, 0)] + [(0, 0)] * (array.ndim - 2))


def keep(caches: Caches, rows: Sequence[int]) -> None:
    """Drop all other rows."""
    for cache in caches:
        cache.filter(list(rows))


def selected(caches: Caches, rows: Sequence[int]) -> Caches:
    """Caches of their own for these rows, copied; the given ones stay as they are."""
    chosen = [_shallow(cache) for cache in caches]
    keep(chosen, rows)
    return chosen


def _shallow(cache: Any) -> Any:
    """Another object that holds the same arrays: dropping rows gives it arrays of its own."""
    if isinstance(cache, CacheList):
        return CacheList(*map(_shallow, cache.caches))
    twin = copy.copy(cache)
    if isinstance(cache, OWN):
        twin.held = copy.copy(cache.held)
    elif isinstance(cache, ArraysCache):
        twin.cache = list(cache.cache)
    return twin


def row_of(caches: Sequence[Any], row: int) -> Caches:
    """One row's caches of all layers, copied: what is alike goes into one piece of memory. With a piece for each array
    a GPU's step in which nine rows ended took 50 ms, with one 20."""
    alike: dict[Any, list[tuple[Any, tuple[str, ...], mx.array]]] = {}
    alone = [_own_layer(cache, row, alike) for cache in caches]
    for group in alike.values():
        arrays = [array for _, _, array in group]
        piece, first = mx.concatenate(arrays) if len(arrays) > 1 else arrays[0] * ONE, 0
        for own, names, _ in group:
            for place, name in enumerate(names, first):
                setattr(own, name, piece[place : place + 1])
            first += len(names)
    return alone


def _own_layer(cache: Any, row: int, alike: dict[Any, list[tuple[Any, tuple[str, ...], mx.array]]]) -> Any:
    if isinstance(cache, OWN):
        own = cache.own_cache(row)
        for names, array in cache.row_arrays(row):
            alike.setdefault((array.shape, array.dtype), []).append((own, names, array))
        return own
    if isinstance(cache, CacheList):
        return CacheList(*(_own_layer(part, row, alike) for part in cache.caches))
    if isinstance(cache, ArraysCache):
        own = ArraysCache(len(cache.cache))
        own.cache = [None if array is None else array[row : row + 1] * ONE for array in cache.cache]
        return own
    return cache.extract(row)
