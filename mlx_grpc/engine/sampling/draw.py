"""Weights into tokens: the draw, its randomness, and an exponential that is quick on a CPU.

A row's randomness is two uniforms hashed from (seed, position) on the host. Nothing of it depends on the batch, the
backend or the calls before, so a seeded row draws the same alone, in company, and resumed.
"""

from __future__ import annotations

from hashlib import blake2b

import mlx.core as mx

BLOCK_TOKENS = 128
_LOG2_E = 1.4426950408889634
# The Taylor terms of 2**f; for |f| <= 1/2 the error is below 3e-7 of the value.
_POWER_OF_TWO = (
    0.00015403530393381608,
    0.0013333558146428443,
    0.009618129107628477,
    0.05550410866482158,
    0.24022650695910072,
    0.6931471805599453,
    1.0,
)
_MANTISSA_BITS = 23
# Added to a small float32, this leaves its nearest whole number in the low bits.
_ROUND_TO_WHOLE = 1.5 * 2**_MANTISSA_BITS


def uniforms(seed: int, position: int) -> tuple[float, float]:
    """Two independent numbers in [0, 1), multiples of 2**-24, for the token at `position` of a row's output."""
    digest = blake2b(
        (seed % 2**64).to_bytes(8, "little") + position.to_bytes(8, "little"),
        digest_size=8,
        person=b"mlx-grpc",
    ).digest()
    return (
        int.from_bytes(digest[:3], "little") * 2.0**-24,
        int.from_bytes(digest[4:7], "little") * 2.0**-24,
    )


def on_cpu() -> bool:
    """Whether what is built now will run on the CPU, where other operations are cheap than on a GPU."""
    return mx.default_device() == mx.Device(mx.cpu)


def exp(x: mx.array) -> mx.array:
    """e**x for float32 x <= 0, to within 4e-6 of the value (3e-7 near 0); 0 where that is no normal float32.

    MLX's own goes one element at a time on an x86 CPU. These plain operations are vectorised, and take a third of its
    time: 2**(whole + part), the whole put straight into the exponent's bits (at -127 they make a zero).
    """
    if not on_cpu():
        return mx.exp(x)
    y = mx.maximum(x * _LOG2_E, -127.0)
    shifted = y + _ROUND_TO_WHOLE
    part = y - (shifted - _ROUND_TO_WHOLE)
    power = part * _POWER_OF_TWO[0] + _POWER_OF_TWO[1]
    for term in _POWER_OF_TWO[2:]:
        power = power * part + term
    scale = (shifted.view(mx.int32) << _MANTISSA_BITS) + (127 << _MANTISSA_BITS)
    result: mx.array = power * scale.view(mx.float32)
    return result


def in_blocks(values: mx.array, multiple: int = BLOCK_TOKENS) -> mx.array:
    """[rows, any] as [rows, blocks, BLOCK_TOKENS], zeros added in front until `multiple` divides the length.

    Sums of thousands are made block by block: one float32 running sum loses what is small against it (a tail of 1e-5
    of the whole, on a CPU)."""
    filler = -values.shape[-1] % multiple
    if filler:
        values = mx.pad(values, [(0, 0), (filler, 0)])
    return values.reshape(values.shape[0], -1, BLOCK_TOKENS)


def draw(weights: mx.array, uniform: mx.array) -> mx.array:
    """One index a row with probability weight / sum of weights, by inverse distribution function.

    weights: [rows, vocab] float32, not negative. uniform: [rows, 2], one to choose a block and one for a token of it.
    An index of weight zero is never returned while the row has another. Returns [rows] uint32; any index in range for
    a row of zeros or NaN.
    """
    vocab = weights.shape[-1]
    blocked = in_blocks(weights)
    block = _pick(blocked.sum(-1), uniform[:, :1])
    inside = mx.take_along_axis(blocked, block[:, None, None], axis=1).squeeze(1)
    filler = blocked.shape[1] * BLOCK_TOKENS - vocab
    return mx.maximum(block * BLOCK_TOKENS + _pick(inside, uniform[:, 1:]), filler) - filler


def _pick(weights: mx.array, uniform: mx.array) -> mx.array:
    total = mx.cumsum(weights, axis=-1)
    # `weights > 0`: a GPU's running sum is made in parallel and may rise by a rounding where the weight is zero.
    past = (total > uniform * total[:, -1:]) & (weights > 0)
    return mx.where(past.any(-1), mx.argmax(past, axis=-1), mx.argmax(weights, axis=-1))
