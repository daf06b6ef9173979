"""From a GGUF file's tensors to the weights of an MLX Llama. Imports MLX, so only the child may import it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import mlx.core as mx

from mlx_grpc.models.gguf.config import llama3_rope_scaling
from mlx_grpc.models.gguf.header import GgufHeader
from mlx_grpc.models.sources import ModelSourceError

GROUP_SIZE = 32
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)")
_ROPE_FREQS = "rope_freqs.weight"

Weights = dict[str, mx.array]


def mlx_weights(
    header: GgufHeader, config: dict[str, Any], on_tensor: Callable[[int, int], None]
) -> tuple[Weights, dict[str, Any]]:
    """Reads all tensors. Returns the weights by MLX name, and `config` with what only the tensors tell.

    Q4_0, Q4_1 and Q8_0 stay packed in groups of 32; what MLX turns into float16 stays so. `on_tensor(done,
    total)` is called along the way. Raises ModelSourceError for a tensor that no Llama has.
    """
    raw: Weights = mx.load(str(header.path), format="gguf")  # type: ignore[assignment]
    config = dict(config)
    if _ROPE_FREQS in raw:
        config["rope_scaling"] = _rope_scaling(header, raw.pop(_ROPE_FREQS), config)
    weights: Weights = {}
    names = sorted(raw)
    small_dtype = mx.float32 if header.tensors["token_embd.weight"].type_name == "F32" else mx.float16
    for done, name in enumerate(names):
        target = mlx_name(name)
        if target is None:
            raise ModelSourceError(f"{header.path}: tensor {name!r} is in no plain Llama; use an MLX version instead")
        weights[target] = _converted(name, raw.pop(name), config, small_dtype)
        on_tensor(done + 1, len(names))
    return weights, {**config, **_quantization(weights), "torch_dtype": _dtype_name(weights)}


def mlx_name(name: str) -> str | None:
    """`blk.3.attn_q.scales` -> `model.layers.3.self_attn.q_proj.scales`; None for what no Llama has."""
    stem, _, kind = name.rpartition(".")
    if kind not in ("weight", "scales", "biases", "bias"):
        return None
    block = _BLOCK.fullmatch(stem)
    if block is None:
        return f"{_TOP[stem]}.{kind}" if stem in _TOP else None
    return f"model.layers.{block[1]}.{_LAYER[block[2]]}.{kind}" if block[2] in _LAYER else None


def unpermuted(rows: mx.array, heads: int) -> mx.array:
    """Undoes llama.cpp's order of the rows of q and k.

    Its converter splits each head's rows into two halves and interleaves them (rows 0, n/2, 1, n/2+1, …),
    since its rope turns neighbours; MLX's turns row i with row i + n/2. `rows` has one row (weights, scales,
    biases) or one value (bias) for each output, `heads` is the number of query heads for q and of key heads
    for k.
    """
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, half, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _converted(name: str, array: mx.array, config: dict[str, Any], small_dtype: mx.Dtype) -> mx.array:
    if ".attn_q." in name:
        array = unpermuted(array, config["num_attention_heads"])
    elif ".attn_k." in name:
        array = unpermuted(array, config["num_key_value_heads"])
    # GGUF keeps norms in float32 always; beside float16 weights they would raise all arithmetic on a GPU to
    # float32.
    return array.astype(small_dtype) if array.ndim == 1 else array


def _quantization(weights: Weights) -> dict[str, Any]:
    """The `quantization` entry: the commonest width for all, and by name the layers that differ."""
    widths = {}
    for name, scales in weights.items():
        if name.endswith(".scales"):
            layer = name.removesuffix(".scales")
            # A packed row has columns * bits / 32 words and columns / 32 scales, so their quotient is the
            # width in bits.
            widths[layer] = weights[f"{layer}.weight"].shape[-1] // scales.shape[-1]
    if not widths:
        return {}
    common = Counter(widths.values()).most_common(1)[0][0]
    others = {layer: {"group_size": GROUP_SIZE, "bits": bits} for layer, bits in widths.items() if bits != common}
    return {"quantization": {"group_size": GROUP_SIZE, "bits": common, **others}}


def _dtype_name(weights: Weights) -> str:
    return str(weights.get("model.embed_tokens.scales", weights["model.embed_tokens.weight"]).dtype).removeprefix(
        "mlx.core."
    )


def _rope_scaling(header: GgufHeader, factors: mx.array, config: dict[str, Any]) -> dict[str, Any]:
    scaling = llama3_rope_scaling(factors.tolist(), config["head_dim"], config["rope_theta"])  # type: ignore[arg-type]
    if scaling is None:
        raise ModelSourceError(
            f"{header.path}: an unknown kind of rope scaling; use an MLX version of the model instead"
        )
    return scaling
