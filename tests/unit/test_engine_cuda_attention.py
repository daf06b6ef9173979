"""The kernel for attention on CUDA, against attention in plain MLX. Run it where there is an NVIDIA GPU."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlx_grpc.engine.accel.cuda import attention as cuda_attention
from tests.unit.test_engine_fused_llama import ON_CUDA, plain_attention

pytestmark = pytest.mark.skipif(not ON_CUDA, reason="needs MLX's CUDA build and an NVIDIA GPU")
TOLERANCE = {mx.float32: 1e-5, mx.float16: 4e-3, mx.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("rows", "heads", "shared", "size", "tokens"),
    [(32, 32, 32, 64, 170), (3, 8, 2, 128, 700), (1, 4, 4, 256, 5), (2, 9, 3, 64, 1), (4, 16, 4, 128, 3000)],
)
def test_attention_is_what_plain_mlx_gives(
    dtype: mx.Dtype, rows: int, heads: int, shared: int, size: int, tokens: int
) -> None:
    """Padded rows, heads that share keys, one token and thousands, small and large blocks of threads."""
    mx.random.seed(0)
    heads_of_rows = mx.random.normal((rows, heads + 2 * shared, size)).astype(dtype)
    pairs = mx.random.normal((2, rows, shared, -(-tokens // 256) * 256, size)).astype(dtype)
    starts = mx.array([min(tokens - 1, 7 * row) for row in range(rows)], dtype=mx.int32)
    asked = (heads_of_rows, pairs, starts, mx.array([tokens], dtype=mx.int32), mx.array(size**-0.5), heads)
    found, expected = cuda_attention.attend(*asked), plain_attention(*asked)
    assert found.shape == (rows, 1, heads * size)
    assert float(mx.abs(found.astype(mx.float32) - expected.astype(mx.float32)).max()) < TOLERANCE[dtype]


def test_a_row_is_the_same_in_any_company() -> None:
    """Bit for bit, as long as the blocks have the same size."""
    mx.random.seed(0)
    heads_of_rows = mx.random.normal((16, 96, 64)).astype(mx.bfloat16)
    pairs = mx.random.normal((2, 16, 32, 256, 64)).astype(mx.bfloat16)
    starts, end = mx.arange(16, dtype=mx.int32), mx.array([200], dtype=mx.int32)
    scale = mx.array(0.125)
    together = cuda_attention.attend(heads_of_rows, pairs, starts, end, scale, 32)
    apart = cuda_attention.attend(heads_of_rows[8:], mx.contiguous(pairs[:, 8:]), starts[8:], end, scale, 32)
    assert mx.array_equal(together[8:], apart)
