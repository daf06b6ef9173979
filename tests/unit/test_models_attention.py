"""Attention in C, against the formula in double precision."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlx_grpc.engine.accel.cpu.attention_kernel import SOURCE, Attention, load_attention

Floats = NDArray[np.float32]
COMPILER = shutil.which("cc")
CLOSE = 3e-6
"""Values are of size one, and so is what comes of them."""

pytestmark = pytest.mark.skipif(sys.platform != "linux" or not COMPILER, reason="compiled with the C compiler")


class Case(NamedTuple):
    """What attention is asked: as its arguments are."""

    queries: Floats
    keys: Floats
    values: Floats
    starts: list[int]
    causal: bool

    def by(self, attention: Attention, threads: int = 1) -> Floats:
        """[rows, length, heads, size]."""
        scale = self.queries.shape[-1] ** -0.5
        return attention(*self[:3], self.starts, scale, causal=self.causal, threads=threads)

    def row(self, row: int, first: int = 0) -> Case:
        """One row alone, without its padding; of its queries those from `first` on."""
        mine, seen = slice(row, row + 1), slice(self.starts[row], None)
        return Case(
            self.queries[mine, :, first:], self.keys[mine, :, seen], self.values[mine, :, seen], [0], self.causal
        )


def formula(case: Case) -> NDArray[np.float64]:
    """[rows, length, heads, size]: softmax(scale · Q · Kᵀ) · V, and zeros where nothing is seen."""
    queries, keys, values = (array.astype(np.float64) for array in case[:3])
    heads, length, size = queries.shape[1:]
    keys, values = (np.repeat(array, heads // keys.shape[1], axis=1) for array in (keys, values))
    places = np.arange(keys.shape[2])
    seen = places[None, None, None] >= np.array(case.starts)[:, None, None, None]
    if case.causal:
        seen = seen & (places[None] <= places[-length:, None])
    scores = np.where(seen, queries @ keys.swapaxes(2, 3) * size**-0.5, -np.inf)
    largest = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isinf(largest), 0, largest))
    total = weights.sum(axis=-1, keepdims=True)
    product: NDArray[np.float64] = (weights / np.where(total == 0, 1, total) @ values).swapaxes(1, 2)
    return product


def make_case(seed: int, rows: int, heads: tuple[int, int], length: int, before: int, size: int, causal: bool) -> Case:
    """`before`: keys that the first query has before its own. heads: of the keys, and how many queries each has.

    Keys and values are views of a cache with room for more, and queries lie as a projection leaves them.
    """
    random = np.random.default_rng(seed)
    context = length + before
    queries = random.standard_normal((rows, length, heads[0] * heads[1], size), np.float32).swapaxes(1, 2)
    keys, values = (random.standard_normal((rows, heads[0], context + 5, size), np.float32) for _ in range(2))
    starts = [int(start) for start in random.integers(0, before + 1, rows)]
    return Case(queries, keys[:, :, :context], values[:, :, :context], starts, causal)


cases = st.builds(
    make_case,
    seed=st.integers(0, 1 << 32),
    rows=st.integers(1, 4),
    heads=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    length=st.integers(1, 90),
    before=st.integers(0, 200),
    size=st.sampled_from([8, 16, 24, 64, 80, 128]),
    causal=st.booleans(),
)


@pytest.fixture(scope="module", params=["", "-DPORTABLE"], ids=["this processor", "any processor"])
def attention(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Attention:
    """With this processor's vectors, and with those of 128 bits."""
    folder = tmp_path_factory.mktemp("attention")
    if not request.param:
        return load_attention(folder)
    library = folder / "portable.so"
    flags = ["-x", "c", "-O2", "-pthread", "-shared", "-fPIC", request.param]
    subprocess.run([str(COMPILER), *flags, "-o", str(library), str(SOURCE)], check=True, timeout=60)
    return Attention(library)


@settings(max_examples=150)
@given(case=cases)
def test_it_computes_the_formula(attention: Attention, case: Case) -> None:
    """Any shape, shared keys, padding, and views of a cache with more room."""
    assert np.abs(case.by(attention) - formula(case)).max() < CLOSE


@settings(max_examples=100)
@given(case=cases, data=st.data())
def test_a_row_is_the_same_in_any_company(attention: Attention, case: Case, data: st.DataObject) -> None:
    """Bit for bit what it is alone, without padding, and with fewer queries at once."""
    row = data.draw(st.integers(0, len(case.starts) - 1))
    first = data.draw(st.integers(0, case.queries.shape[2] - 1))
    alone = case.row(row, first).by(attention)
    assert (alone[0] == case.by(attention)[row, first:]).all()


@pytest.mark.parametrize("threads", [2, 3, 7, 1000])
def test_threads_change_no_bit(attention: Attention, threads: int) -> None:
    """With work enough for several."""
    case = make_case(1, 2, (3, 3), 150, 200, 64, True)
    assert (case.by(attention, threads) == case.by(attention)).all()


def test_a_query_that_sees_nothing_gives_zeros(attention: Attention) -> None:
    """A chunk that is padded on the left has such queries, and nothing they give may be infinite."""
    case = make_case(1, 1, (1, 2), 70, 0, 16, True)._replace(starts=[66])
    out = case.by(attention)
    assert (out[0, :66] == 0).all()
    assert np.abs(out - formula(case)).max() < CLOSE


def test_what_is_not_seen_is_not_read(attention: Attention) -> None:
    """Padding may hold anything."""
    case = make_case(3, 2, (2, 2), 40, 60, 16, True)._replace(starts=[7, 60])
    expected = case.by(attention)
    for array in (case.keys, case.values):
        for row, start in enumerate(case.starts):
            array[row, :, :start] = np.nan
    assert (case.by(attention) == expected).all()


@pytest.mark.parametrize("factor", [100.0, 1e6])
def test_large_scores_do_not_overflow(attention: Attention, factor: float) -> None:
    """Weights of nothing but one key's: exponents far beyond float32's."""
    case = make_case(4, 1, (1, 1), 20, 130, 64, True)
    large = case._replace(queries=case.queries * np.float32(factor))
    off: Any = np.abs(large.by(attention) - formula(large))
    assert np.median(off) < CLOSE
    assert off.max() < 1  # two scores may lie within rounding of each other
