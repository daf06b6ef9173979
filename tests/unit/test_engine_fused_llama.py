"""Steps of the Llama family put together anew, against mlx_lm's own code. Without a GPU attention is plain MLX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import pytest
from mlx.nn.layers.quantized import quantize
from mlx_lm.models import llama
from mlx_lm.models.cache import KVCache

from mlx_grpc.engine.accel.cuda import attention as cuda_attention
from mlx_grpc.engine.accel.cuda import fused_llama
from mlx_grpc.engine.batch.caches.rows import batched

ON_CUDA = mx.cuda.is_available() and mx.default_device().type == mx.DeviceType.gpu
CLOSE = 2e-2 if ON_CUDA else 1e-4
"""On CUDA MLX multiplies float32 as TF32."""
SIZE = 64
CONFIG = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 96,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": SIZE, "rms_norm_eps": 1e-5, "vocab_size": 100,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "shared heads": {},
    "a head each": {"num_key_value_heads": 4},
    "own last layer": {"tie_word_embeddings": False},
    "Llama 3's rotation": {
        "max_position_embeddings": 8192,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
}  # fmt: skip


def plain_attention(
    heads_of_rows: mx.array, pairs: mx.array, starts: mx.array, end: mx.array, scale: mx.array, heads: int
) -> mx.array:
    """What `cuda_attention.attend` says it gives."""
    queries = heads_of_rows[:, :heads, None].astype(mx.float32)
    keys, values = mx.repeat(pairs.astype(mx.float32), heads // pairs.shape[2], axis=2)
    places = mx.arange(pairs.shape[3])
    seen = (places >= starts[:, None, None, None]) & (places < end)
    weights = mx.softmax(mx.where(seen, scale * queries @ keys.swapaxes(-1, -2), -mx.inf), axis=-1)
    return (weights @ values).reshape(len(starts), 1, -1).astype(heads_of_rows.dtype)


@pytest.fixture(autouse=True)
def attention(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the calls, each of them a trace: steps that repeat one make none."""
    calls = [0]
    real = cuda_attention.attend if ON_CUDA else plain_attention

    def attend(*args: Any) -> mx.array:
        calls[0] += 1
        return real(*args)

    monkeypatch.setattr(cuda_attention, "attend", attend)
    return calls


def networks(**changes: Any) -> tuple[Any, Any]:
    """mlx_lm's, and one with the same weights and steps of its own."""
    both = []
    for _ in range(2):
        mx.random.seed(0)
        both.append(llama.Model(llama.ModelArgs.from_dict(CONFIG | changes)))
    mx.eval([network.parameters() for network in both])
    return both[0], fused_llama.fused(both[1])


def steps(network: Any, prompts: Sequence[Sequence[int]]) -> list[mx.array]:
    """Logits of a prefill, of steps, and of steps after a row has left and after others have joined."""
    caches = _prefilled(network, prompts)
    logits = [network(mx.array([[number]] * len(prompts)), cache=caches) for number in range(3)]
    for cache in caches:
        cache.filter([0, 2])
    logits += [network(mx.array([[number], [number + 1]]), cache=caches) for number in range(3)]
    for cache, other in zip(caches, _prefilled(network, [range(30), range(7)]), strict=True):
        cache.extend([other])
    return logits + [network(mx.array([[7], [8], [9], [number]]), cache=caches) for number in range(3)]


def _prefilled(network: Any, prompts: Sequence[Sequence[int]]) -> list[Any]:
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    caches = batched([[KVCache() for _ in network.layers] for _ in prompts])
    for cache in caches:
        cache.prepare(lengths=[len(prompt) for prompt in prompts], right_padding=padding)
    network(
        mx.array([[*prompt, *[0] * missing] for prompt, missing in zip(prompts, padding, strict=True)]), cache=caches
    )
    for cache in caches:
        cache.finalize()
    return caches


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_mlx_lm(kind: str, attention: list[int]) -> None:
    """Rows of different lengths, that come and go, in float32."""
    theirs, ours = networks(**KINDS[kind])
    assert isinstance(ours, fused_llama.FusedLlama)
    prompts = [range(20), range(3), range(40, 55)]
    for expected, found in zip(steps(theirs, prompts), steps(ours, prompts), strict=True):
        assert mx.allclose(expected, found, rtol=10 * CLOSE, atol=CLOSE), mx.abs(expected - found).max()
    assert attention[0]


def test_quantised_weights_are_joined_too(attention: list[int]) -> None:
    """Their scales and biases with them."""
    theirs, ours = networks()
    for network in (theirs, ours.network):
        quantize(network, 32, 4)
    ours = fused_llama.fused(ours.network)
    assert isinstance(ours, fused_llama.FusedLlama)
    prompts = [range(20), range(3), range(40, 55)]
    for expected, found in zip(steps(theirs, prompts), steps(ours, prompts), strict=True):
        assert mx.allclose(expected, found, rtol=10 * CLOSE, atol=CLOSE), mx.abs(expected - found).max()
    assert attention[0]


def test_a_step_is_traced_once_for_a_shape(attention: list[int]) -> None:
    """Two pieces hold attention: the one between layers, which serves all of them, and the last."""
    _, ours = networks()
    caches, attention[0] = _prefilled(ours, [range(5), range(9), range(7)]), 0
    for number in range(4):
        ours(mx.array([[number]] * 3), cache=caches)
    assert attention[0] == 2
    for cache in caches:
        cache.filter([1, 2])
    ours(mx.array([[1], [1]]), cache=caches)
    assert attention[0] == 4, "another count of rows is another shape"


def test_rows_without_a_prompt_begin_as_mlx_lm_has_it(attention: list[int]) -> None:
    """A prompt of one token leaves nothing to prefill: the first step finds empty caches."""
    theirs, ours = networks()
    warm_ups = attention[0]
    for network in (theirs, ours):
        network.caches = batched([[KVCache() for _ in network.layers] for _ in range(2)])
    for number in range(3):
        tokens = mx.array([[number], [number + 1]])
        expected, found = (network(tokens, cache=network.caches) for network in (theirs, ours))
        assert mx.allclose(expected, found, rtol=10 * CLOSE, atol=CLOSE)
    assert attention[0] > warm_ups


def test_weights_take_no_more_memory_than_before() -> None:
    """The layers keep views of what was joined."""
    mx.clear_cache()
    before = mx.get_active_memory()
    network = llama.Model(llama.ModelArgs.from_dict(CONFIG | {"hidden_size": 512, "num_hidden_layers": 4}))
    mx.eval(network.parameters())
    alone = mx.get_active_memory() - before
    ours = fused_llama.fused(network)
    mx.synchronize()
    assert mx.get_active_memory() - before <= alone * 1.01
    assert isinstance(ours, fused_llama.FusedLlama)


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_bias": True},
        {"mlp_bias": True},
        {"head_dim": 16},
        {"layer_types": ["full_attention", "sliding_attention", "full_attention"], "sliding_window": 8},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
    ],
    ids=str,
)
def test_what_is_not_as_expected_stays_as_it_is(changes: dict[str, Any]) -> None:
    """Biases, windows, rotations that scale: mlx_lm knows how."""
    network = llama.Model(llama.ModelArgs.from_dict(CONFIG | changes))
    assert fused_llama.fused(network) is network


def test_layers_that_differ_stay_as_they_are() -> None:
    """A model of which some layers are quantised, or otherwise."""
    network, _ = networks()
    quantize(network.layers[1], 32, 4)
    assert fused_llama.fused(network) is network
