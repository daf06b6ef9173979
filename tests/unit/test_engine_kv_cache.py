"""The KV cache of a batch of rows, against a list of each row's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import mlx.core as mx
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import KVCache

from mlx_grpc.engine.batch.caches.plain import RowsKVCache
from mlx_grpc.engine.batch.caches.rows import batched, extend, row_of

LAYERS = 2
HEADS = 2
MOST_TOKENS = 300
"""Past one growth of the room."""

lengths = st.lists(st.integers(1, MOST_TOKENS), min_size=1, max_size=5)


class Batch:
    """Caches of all layers, and what each row of them should hold: a token's number is the first of its key."""

    def __init__(self, prompts: Sequence[int], start: int, value_size: int = 3) -> None:
        self.value_size = value_size
        self.caches = batched([[KVCache() for _ in range(LAYERS)] for _ in prompts])
        self.rows: list[list[float]] = [[] for _ in prompts]
        self.feed([[float(start + place) for place in range(length)] for length in prompts])

    def feed(self, chunks: Sequence[Sequence[float]]) -> None:
        """Process a chunk of each row, padded on the right, as a prefill does."""
        longest = max(map(len, chunks))
        padding = [longest - len(chunk) for chunk in chunks]
        padded = mx.array([[*chunk, *([-1.0] * missing)] for chunk, missing in zip(chunks, padding, strict=True)])
        keys = mx.broadcast_to(padded[:, None, :, None], (len(chunks), HEADS, longest, 3))
        for cache in self.caches:
            if any(padding):
                cache.prepare(lengths=[len(chunk) for chunk in chunks], right_padding=padding)
            cache.update_and_fetch(keys, keys[..., : self.value_size] + 0.5)
            cache.finalize()
        for row, chunk in zip(self.rows, chunks, strict=True):
            row.extend(chunk)

    def filter(self, keep: list[int]) -> None:
        for cache in self.caches:
            cache.filter(keep)
        self.rows = [self.rows[row] for row in keep]

    def extend(self, other: Batch) -> None:
        extend(self.caches, [other.caches])
        self.rows += other.rows

    def check(self) -> None:
        for cache in self.caches:
            assert cache.offset.tolist() == [len(row) for row in self.rows]
            for place, row in enumerate(self.rows):
                (alone,) = row_of([cache], place)
                assert alone.offset == len(row)
                assert alone.keys[0, 0, :, 2].tolist() == row
                assert alone.values[0, 1, :, 0].tolist() == [token + 0.5 for token in row]
            seen = self._visible(cache)
            assert seen == [len(row) + 1 for row in self.rows], "the next token sees its row and itself"

    def _visible(self, cache: RowsKVCache) -> list[int]:
        mask = cache.make_mask(1)
        if mask is None:
            return [cache.size() + 1] * len(self.rows)
        shown = mx.broadcast_to(mask, (len(self.rows), 1, 1, cache.size() + 1))
        return [int(cast(int, row.sum().item())) for row in shown]


@settings(deadline=None, max_examples=60)
@given(data=st.data(), prompts=lengths, value_size=st.sampled_from((2, 3)))
def test_rows_hold_their_tokens_whoever_comes_and_goes(
    data: st.DataObject, prompts: list[int], value_size: int
) -> None:
    """Prompts of any lengths, steps, rows that join and rows that leave, in any order; values like keys or not."""
    batch = Batch(prompts, 1000, value_size)
    for number in range(2, data.draw(st.integers(3, 8))):
        move = data.draw(st.sampled_from(("step", "prompt", "join", "leave")))
        if move == "step":
            batch.feed([[float(number)] for _ in batch.rows])
        elif move == "prompt":
            batch.feed([[float(number)] * data.draw(st.integers(1, 40)) for _ in batch.rows])
        elif move == "join":
            batch.extend(Batch(data.draw(lengths), number * 1000, value_size))
        elif len(batch.rows) > 1:
            places = range(len(batch.rows))
            batch.filter(data.draw(st.lists(st.sampled_from(places), unique=True, min_size=1)))
        batch.check()


def test_rows_without_padding_need_no_mask() -> None:
    """MLX's fused attention takes no array of a mask on every backend."""
    batch = Batch([5, 5], 0)
    assert batch.caches[0].make_mask(1) is None
    assert batch.caches[0].make_mask(4) == "causal"
    assert batch.caches[0].make_mask(4, window_size=3).shape == (4, 9)
    batch.extend(Batch([3], 0))
    assert batch.caches[0].make_mask(1).shape == (3, 1, 1, 6)


def test_layers_share_their_positions() -> None:
    """One array for all layers, made anew when a token was added."""
    first, second = Batch([5, 3], 0).caches
    assert first.offset is second.offset
    before = first.offset
    first.update_and_fetch(*mx.zeros((2, 2, HEADS, 1, 3)))
    assert first.offset.tolist() == [6, 4]
    assert before.tolist() == [5, 3]


def test_keys_and_values_are_added_in_one() -> None:
    """As a step gives them that has both side by side; the room grows with them."""
    (cache,) = batched([[KVCache()], [KVCache()]])
    cache.update_and_fetch(*mx.random.uniform(shape=(2, 2, HEADS, 255, 4)))
    added = mx.random.uniform(shape=(3, 2, 2, HEADS, 1, 4))
    for number, pairs in enumerate(added):
        assert cache.room_with(1) == (256 if number == 0 else 512)
        assert cache.add_pairs(pairs) is cache.pairs
    assert cache.size() == 258
    for place, pairs in enumerate(added, 255):
        assert mx.array_equal(cache.keys[:, :, place], pairs[0, :, :, 0])
        assert mx.array_equal(cache.values[:, :, place], pairs[1, :, :, 0])


def test_a_row_taken_out_shares_no_memory() -> None:
    """A view of a row that fills its room would pin the whole batch, and make each of its steps copy it."""
    layers = batched([[KVCache() for _ in range(3)] for _ in range(2)])
    for layer in layers:
        layer.update_and_fetch(*mx.random.uniform(shape=(2, 2, HEADS, 256, 64)))
    mx.eval([layer.state for layer in layers])
    mx.synchronize()
    before = mx.get_active_memory()
    alone = row_of(layers, 1)
    mx.eval([cache.state[:2] for cache in alone])
    assert mx.get_active_memory() - before >= sum(layer.nbytes for layer in layers) // 2
    for cache, layer in zip(alone, layers, strict=True):
        assert mx.array_equal(cache.keys, layer.keys[1:])
        assert mx.array_equal(cache.values, layer.values[1:])
