"""The door to attention in C, against MLX's own."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models import base
from mlx_lm.models.base import create_causal_mask
from mlx_lm.utils import load_model

from mlx_grpc.engine.accel.cpu import attention as cpu_attention
from mlx_grpc.engine.accel.cpu.attention import CpuAttention, use_own_attention
from mlx_grpc.engine.accel.cpu.attention_kernel import Attention, load_attention
from mlx_grpc.engine.batch.caches.arrays import RowArrays
from mlx_grpc.engine.batch.caches.plain import RowsKVCache
from mlx_grpc.engine.batch.caches.shared import SharedArrays
from tests.helpers.llama import VOCAB_SIZE, make_llama

NAME = "scaled_dot_product_attention"
CLOSE = 3e-6

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("cc") or mx.default_device().type != mx.DeviceType.cpu,
    reason="compiled with the C compiler, for MLX on a Linux CPU",
)


class Refusing(Attention):
    """Must not be asked."""

    def __init__(self) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("asked")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> CpuAttention:
    """The door, and C behind it."""
    return CpuAttention(load_attention(tmp_path_factory.mktemp("attention")), least_scores=0)


@pytest.fixture
def llama(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of mlx_lm's Llama with mlx_lm's own function in it, whoever was there before."""
    module = importlib.import_module("mlx_lm.models.llama")
    monkeypatch.setattr(module, NAME, base.scaled_dot_product_attention)
    return module


def filled(paddings: list[int], tokens: int, size: int = 16) -> RowsKVCache:
    """A cache whose rows begin where they say. 2 heads."""
    cache = RowsKVCache(RowArrays([], list(paddings), 0), SharedArrays())
    cache.update_and_fetch(*mx.random.normal((2, len(paddings), 2, tokens, size)))
    return cache


@pytest.mark.parametrize("paddings", [[0, 0], [5, 0], [3, 9]])
@pytest.mark.parametrize("length", [1, 20])
def test_it_gives_what_mlx_gives(own: CpuAttention, paddings: list[int], length: int) -> None:
    """A step and a chunk, with padding and without, from the cache's own masks; and MLX is not asked."""
    cache = filled(paddings, 30)
    mask = cache.make_mask(length)
    keys, values = cache.update_and_fetch(*mx.random.normal((2, 2, 2, length, 16)))
    queries = mx.random.normal((2, length, 6, 16)).swapaxes(1, 2)
    found = own(queries, keys, values, cache, 0.25, mask)
    expected = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.25, mask=mask)
    assert mx.allclose(found, expected, rtol=0, atol=CLOSE)
    with pytest.raises(AssertionError, match="asked"):
        CpuAttention(Refusing(), least_scores=0)(queries, keys, values, cache, 0.25, mask)


@pytest.mark.parametrize("what", ["a mask", "a window", "sinks", "float16", "size 12", "values of another size"])
def test_what_it_does_not_know_goes_to_mlx(what: str) -> None:
    """Bit for bit mlx_lm's own function, and C is not asked."""
    size = 12 if what == "size 12" else 16
    cache = filled([5, 0], 10, size)
    mask = cache.make_mask(4, window_size=3 if what == "a window" else None)
    keys, values = cache.update_and_fetch(*mx.random.normal((2, 2, 2, 4, size)))
    queries, sinks = mx.random.normal((2, 4, 4, size)), None
    if what == "a mask":
        mask = create_causal_mask(4, 10)
    elif what == "sinks":
        sinks = mx.zeros(4)
    elif what == "float16":
        queries, keys, values = (array.astype(mx.float16) for array in (queries, keys, values))
    elif what == "values of another size":
        values = values[..., :8]
    found = CpuAttention(Refusing(), least_scores=0)(queries, keys, values, cache, 0.25, mask, sinks)
    expected = base.scaled_dot_product_attention(queries, keys, values, cache, 0.25, mask, sinks)
    assert mx.array_equal(found, expected)


def test_a_mask_of_another_step_is_not_taken_for_this_ones() -> None:
    """The padding that a mask was made for goes with it."""
    cache = filled([5, 0], 10)
    mask = cache.make_mask(1)
    assert cache.paddings_of(mask) == [5, 0]
    cache.extend([filled([0], 20)])
    assert cache.paddings_of(mask) == [5, 0]
    assert cache.paddings_of(cache.make_mask(1)) == [15, 10, 0]
    assert cache.paddings_of(mx.array(mask)) is None


def test_the_cache_is_still_written_in_place(own: CpuAttention) -> None:
    """No view of it outlives a call: else each step would copy all of it."""
    cache, places = filled([2, 0], 30), set()
    for _ in range(4):
        keys, values = cache.update_and_fetch(*mx.random.normal((2, 2, 2, 1, 16)))
        mx.eval(own(mx.random.normal((2, 4, 1, 16)), keys, values, cache, 0.25, None))
        del keys, values
        assert cache.keys is not None
        places.add(np.asarray(cache.keys).ctypes.data)
    assert len(places) == 1


def test_few_scores_are_left_to_mlx() -> None:
    """A step of one row with a short context is quicker with MLX's."""
    attention = CpuAttention(Refusing())
    queries, keys, cache = mx.zeros((1, 4, 1, 16)), mx.zeros((1, 2, 999, 16)), filled([0], 1)
    assert attention(queries, keys, keys, cache, 0.25, None).shape == queries.shape
    with pytest.raises(AssertionError):
        attention(queries, mx.zeros((1, 2, 1000, 16)), mx.zeros((1, 2, 1000, 16)), cache, 0.25, None)


def test_a_network_says_the_same_with_it(tmp_path: Path, llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random Llama's logits over two chunks and some steps, in a batch that is padded."""
    network, _ = load_model(make_llama(tmp_path))
    chunks = [mx.random.randint(0, VOCAB_SIZE, (3, length)) for length in (40, 70, 1, 1)]

    def logits() -> mx.array:
        shared = SharedArrays()
        caches = [RowsKVCache(RowArrays([], [0, 11, 39], 0), shared) for _ in network.layers]
        found = [network(chunk, cache=caches)[:, -1] for chunk in chunks]
        mx.eval(found)
        return mx.stack(found)

    expected = logits()
    monkeypatch.setattr(CpuAttention.__init__, "__defaults__", (0,))
    assert use_own_attention(network) == ""
    assert isinstance(getattr(llama, NAME), CpuAttention)
    assert mx.allclose(logits(), expected, rtol=1e-4, atol=1e-4)


def test_without_a_compiler_mlx_computes(tmp_path: Path, llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said in one line, and nothing else changes."""

    def nothing() -> Attention:
        raise OSError("no C\ncompiler")

    monkeypatch.setattr(cpu_attention, "load_attention", nothing)
    network, _ = load_model(make_llama(tmp_path))
    assert use_own_attention(network).endswith("no C compiler")
    assert getattr(llama, NAME) is base.scaled_dot_product_attention
