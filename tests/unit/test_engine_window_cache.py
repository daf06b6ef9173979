"""The cache of sliding windows, against what each token must see: the last tokens of its own row, itself included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import RotatingKVCache

from mlx_grpc.engine.batch.caches.rows import Caches, batched, extend, keep, row_of, selected
from mlx_grpc.engine.batch.caches.window import RowsWindowCache

LAYERS = 2
HEADS = 2
lengths = st.lists(st.integers(1, 90), min_size=1, max_size=4)


class Batch:
    """The caches of all layers, and each row's tokens: a token's number is the first of its key."""

    def __init__(self, prompts: Sequence[int], window: int, start: int) -> None:
        self.window = window
        self.caches: Caches = batched([[RotatingKVCache(window) for _ in range(LAYERS)] for _ in prompts])
        self.rows: list[list[float]] = [[] for _ in prompts]
        self.feed([[float(start + place) for place in range(length)] for length in prompts])

    def feed(self, chunks: Sequence[Sequence[float]]) -> None:
        """Process a chunk of each row, padded on the right, as a prefill does, and look at what each token sees."""
        longest = max(map(len, chunks))
        padding = [longest - len(chunk) for chunk in chunks]
        padded = mx.array([[*chunk, *([-1.0] * missing)] for chunk, missing in zip(chunks, padding, strict=True)])
        keys = mx.broadcast_to(padded[:, None, :, None], (len(chunks), HEADS, longest, 3))
        for row, chunk in zip(self.rows, chunks, strict=True):
            row.extend(chunk)
        for cache in self.caches:
            if any(padding):
                cache.prepare(lengths=[len(chunk) for chunk in chunks], right_padding=padding)
            mask = cache.make_mask(longest)
            found, values = cache.update_and_fetch(keys, keys + 0.5)
            assert mx.array_equal(found, cache.keys_and_values()[0]), "layers that share them see the same"
            cache.finalize()
            self._check_seen(found[:, 0, :, 0], mask, chunks)
            self._check_seen(values[:, 1, :, 2] - 0.5, mask, chunks)

    def _check_seen(self, keys: mx.array, mask: Any, chunks: Sequence[Sequence[float]]) -> None:
        seen = seen_by(mask, len(chunks), max(map(len, chunks)), keys.shape[1])
        for place, (row, chunk) in enumerate(zip(self.rows, chunks, strict=True)):
            known = cast(list[float], keys[place].tolist())
            for number in range(len(chunk)):
                end = len(row) - len(chunk) + number + 1
                visible = [key for key, shown in zip(known, seen[place][number], strict=True) if shown]
                assert visible == row[max(0, end - self.window) : end]

    def check(self) -> None:
        for cache in self.caches:
            assert cache.offset.tolist() == [len(row) for row in self.rows]
        for place, row in enumerate(self.rows):
            for alone in row_of(self.caches, place):
                assert (alone.offset, alone.max_size) == (len(row), self.window)
                assert alone.keys[0, 1, :, 0].tolist() == row[-self.window :]


def seen_by(mask: Any, rows: int, tokens: int, keys: int) -> list[list[list[bool]]]:
    """[rows, tokens, keys]: what the mask lets through; None and "causal" are MLX's own."""
    if mask is None:
        mask = mx.ones((tokens, keys), dtype=mx.bool_)
    elif isinstance(mask, str):
        mask = mx.arange(keys)[None] <= mx.arange(keys - tokens, keys)[:, None]
    return cast(list[list[list[bool]]], mx.broadcast_to(mask, (rows, 1, tokens, keys))[:, 0].tolist())


@settings(deadline=None, max_examples=60)
@given(data=st.data(), prompts=lengths, window=st.integers(1, 40))
def test_each_token_sees_its_window_whoever_comes_and_goes(
    data: st.DataObject, prompts: list[int], window: int
) -> None:
    """Prompts shorter and longer than the window, steps, rows that join and leave, in any order."""
    batch = Batch(prompts, window, 1000)
    for number in range(2, data.draw(st.integers(3, 8))):
        move = data.draw(st.sampled_from(("step", "prompt", "join", "leave")))
        if move == "step":
            batch.feed([[float(number)] for _ in batch.rows])
        elif move == "prompt":
            # A row that is through has nothing left, while another goes on by a single token.
            batch.feed([[float(number)] * data.draw(st.integers(0, 40)) for _ in batch.rows[1:]] + [[float(number)]])
        elif move == "join":
            other = Batch(data.draw(lengths), window, number * 1000)
            extend(batch.caches, [other.caches])
            batch.rows += other.rows
        elif len(batch.rows) > 1:
            places = data.draw(st.lists(st.sampled_from(range(len(batch.rows))), unique=True, min_size=1))
            keep(batch.caches, places)
            batch.rows = [batch.rows[place] for place in places]
        batch.check()


def test_old_tokens_are_dropped() -> None:
    """After a thousand steps the cache is no larger than its window and two rooms."""
    batch = Batch([3, 5], 16, 0)
    for number in range(1000):
        batch.feed([[float(number)], [float(number)]])
    (cache, _) = batch.caches
    assert cache.held.room <= 512
    assert cache.size() == 16


def test_a_row_that_left_goes_on_where_it_was() -> None:
    """Taken out and put into another batch, with a window that has wrapped and without."""
    batch = Batch([70, 4], 16, 0)
    other = Batch([9], 16, 500)
    for place in (0, 1):
        alone = batched([row_of(batch.caches, place)])
        extend(other.caches, [alone])
        other.rows.append(list(batch.rows[place]))
    other.check()
    other.feed([[1.0], [2.0], [3.0]])


def test_rows_chosen_from_a_batch_leave_it_as_it_was() -> None:
    """`selected` copies."""
    batch = Batch([30, 4, 8], 16, 0)
    chosen = selected(batch.caches, [2, 0])
    batch.check()
    batch.feed([[1.0], [2.0], [3.0]])
    assert [cache.offset.tolist() for cache in chosen] == [[8, 30]] * LAYERS


def test_windows_that_differ_are_refused() -> None:
    """They would need masks of their own in each row."""
    with pytest.raises(ValueError, match="cannot be batched"):
        batched([[RotatingKVCache(8)], [RotatingKVCache(9)]])
    with pytest.raises(ValueError, match="cannot be batched"):
        batched([[RotatingKVCache(8, keep=4)]])


def test_no_mask_is_made_while_the_window_is_not_full() -> None:
    """MLX's fused attention takes no array of a mask on every backend."""
    (cache, _) = Batch([5, 5], 16, 0).caches
    assert isinstance(cache, RowsWindowCache)
    assert cache.make_mask(1) is None
    assert cache.make_mask(11) == "causal"
    assert cache.make_mask(12).shape == (12, 17)
    assert Batch([40, 40], 16, 0).caches[0].make_mask(1) is None
