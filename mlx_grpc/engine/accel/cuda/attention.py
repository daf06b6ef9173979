"""Attention of one new token a row on CUDA: one kernel, whether rows are padded or not.

MLX's own kernel for this takes no mask on CUDA (on Metal it does), so that padded rows cost five kernels a layer, and a
step is bound by the launching of kernels, not by what they do (docs/performance_gpu.md). This one reads queries, keys
and values where they lie.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import mlx.core as mx

HEAD_SIZES = (64, 128, 256)
MOST_TOKENS = 8192
ENOUGH_BLOCKS = 256
"""With so many pairs of a row and a head the device is busy however long the rows are. With fewer each gets a larger
block of threads, and beyond MOST_TOKENS rows are better cut into parts, as MLX does."""

# A block for each head of each row. LANES neighbouring threads take a key together, eight numbers each, in one load of
# 16 bytes where a number has two. The softmax goes along as keys come (Milakov and Gimelshein, arXiv 1805.02867).
_SOURCE = """
  constexpr int LANES = SIZE / 8;
  constexpr int KEYS = THREADS / LANES;
  constexpr int WARPS = THREADS / 32;
  constexpr float NOTHING = -1e30f;
  constexpr float LOG2_E = 1.44269504089f;
  struct alignas(16) Eight { T at[8]; };
  __shared__ float outs[WARPS][SIZE];
  __shared__ float maxima[WARPS];
  __shared__ float sums[WARPS];

  const int head = blockIdx.x, row = blockIdx.y, heads = gridDim.x, rows = gridDim.y;
  const int group = threadIdx.x / LANES, lane = threadIdx.x % LANES, warp = threadIdx.x / 32;
  const int64_t shared_heads = pairs_shape[2], room = pairs_shape[3];
  const int64_t all_heads = heads + 2 * shared_heads;

  float query[8], out_part[8], sum = 0.0f, best = NOTHING;
  const T* q = heads_of_rows + (row * all_heads + head) * SIZE + lane * 8;
  for (int i = 0; i < 8; ++i) {
    query[i] = static_cast<float>(q[i]) * scale[0] * LOG2_E;
    out_part[i] = 0.0f;
  }
  const T* k = pairs + (row * shared_heads + head / SHARE) * room * SIZE + lane * 8;
  const T* v = k + rows * shared_heads * room * SIZE;

  const int last = end[0] - 1;
  #pragma unroll 2
  for (int first = starts[row]; first <= last; first += KEYS) {
    const bool is_there = first + group <= last;
    const int64_t place = is_there ? first + group : last;
    const Eight key = *reinterpret_cast<const Eight*>(k + place * SIZE);
    const Eight value = *reinterpret_cast<const Eight*>(v + place * SIZE);
    float score = 0.0f;
    for (int i = 0; i < 8; ++i) score += query[i] * static_cast<float>(key.at[i]);
    for (int step = LANES / 2; step > 0; step /= 2) score += __shfl_xor_sync(0xffffffff, score, step);
    const float higher = is_there ? max(best, score) : best;
    const float kept = exp2f(best - higher), weight = is_there ? exp2f(score - higher) : 0.0f;
    sum = sum * kept + weight;
    best = higher;
    for (int i = 0; i < 8; ++i) out_part[i] = out_part[i] * kept + weight * static_cast<float>(value.at[i]);
  }

  for (int step = LANES; step < 32; step *= 2) {
    const float other = __shfl_xor_sync(0xffffffff, best, step);
    const float higher = max(best, other);
    const float mine = exp2f(best - higher), theirs = exp2f(other - higher);
    sum = sum * mine + __shfl_xor_sync(0xffffffff, sum, step) * theirs;
    for (int i = 0; i < 8; ++i)
      out_part[i] = out_part[i] * mine + __shfl_xor_sync(0xffffffff, out_part[i], step) * theirs;
    best = higher;
  }
  if (threadIdx.x % 32 < LANES) {
    for (int i = 0; i < 8; ++i) outs[warp][lane * 8 + i] = out_part[i];
    maxima[warp] = best;
    sums[warp] = sum;
  }
  __syncthreads();
  if (threadIdx.x < SIZE) {
    float highest = NOTHING, total = 0.0f, mixed = 0.0f;
    for (int i = 0; i < WARPS; ++i) highest = max(highest, maxima[i]);
    for (int i = 0; i < WARPS; ++i) {
      const float share = exp2f(maxima[i] - highest);
      total += sums[i] * share;
      mixed += outs[i][threadIdx.x] * share;
    }
    out[(static_cast<int64_t>(row) * heads + head) * SIZE + threadIdx.x] = static_cast<T>(mixed / total);
  }
"""


@cache
def _kernel() -> Any:
    return mx.fast.cuda_kernel(
        name="rows_attention",
        input_names=["heads_of_rows", "pairs", "starts", "end", "scale"],
        output_names=["out"],
        source=_SOURCE,
    )


def is_for(rows: int, heads: int, tokens: int) -> bool:
    """Whether `attend` is the quicker way for so many rows, the longest of so many tokens."""
    return tokens <= MOST_TOKENS or rows * heads >= ENOUGH_BLOCKS


def attend(
    heads_of_rows: mx.array, pairs: mx.array, starts: mx.array, end: mx.array, scale: mx.array, heads: int
) -> mx.array:
    """softmax(scale · queries · keys) · values, for each row over its tokens from its start to the end.

    heads_of_rows: [rows, heads + 2 · shared heads, size], of which the first `heads` are queries; pairs: keys and
    values as [2, rows, shared heads, room, size]; starts: [rows] int32; end: [1] int32, above all of them; scale:
    float32 scalar. Gives [rows, 1, heads · size]. Sums are in float32.
    """
    rows, _, size = heads_of_rows.shape
    threads = 256 if rows * heads >= ENOUGH_BLOCKS else 1024
    constants = {"SIZE": size, "SHARE": heads // pairs.shape[2], "THREADS": threads}
    out: mx.array
    (out,) = _kernel()(
        inputs=[heads_of_rows, pairs, starts, end, scale],
        template=[("T", heads_of_rows.dtype), *constants.items()],
        grid=(heads * threads, rows, 1),
        threadgroup=(threads, 1, 1),
        output_shapes=[(rows, 1, heads * size)],
        output_dtypes=[heads_of_rows.dtype],
    )
    return out
