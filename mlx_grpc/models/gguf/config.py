"""From a GGUF file's metadata to the config.json of an MLX model."""

from __future__ import annotations

from typing import Any

from mlx_grpc.models.gguf.families import INSTEAD, OUTPUT, Family, family_of
from mlx_grpc.models.gguf.header import GgufHeader
from mlx_grpc.models.gguf.metadata import count, number
from mlx_grpc.models.gguf.rope import check_rope, rope_entries
from mlx_grpc.models.gguf.special_ids import special_ids
from mlx_grpc.models.sources import ModelSourceError

_COUNTS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
}
# Metadata that change what a model computes, after the family's name, and the values that change nothing. Those that
# a family has an entry for are read, not refused.
_NEUTRAL: dict[str, tuple[float, ...]] = {
    "attention.causal": (True,),
    "attention.scale": (0.0,),
    "attention.clamp_kqv": (0.0,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "logit_scale": (0.0, 1.0),
}
_LAYERS_TO_A_FULL_ONE = 6
"""Gemma 3's: llama.cpp's converter does not write it."""


def check_family(header: GgufHeader) -> None:
    """Raises ModelSourceError for a family that is not known, and for what mlx_lm's class of it does not compute."""
    family = family_of(header)
    if header.metadata.get(f"{family.architecture}.expert_count"):
        raise ModelSourceError(f"{header.path}: a mixture of experts cannot be imported; {INSTEAD}")
    own = {entry.key for entry in family.entries}
    for name, neutral in _NEUTRAL.items():
        key = f"{family.architecture}.{name}"
        if name not in own and (value := header.metadata.get(key, neutral[0])) not in neutral:
            raise ModelSourceError(
                f"{header.path}: {key} is {repr(value)[:100]}, which mlx_lm's {family.name} does not compute; {INSTEAD}"
            )
    check_rope(header, family)


def model_config(header: GgufHeader) -> dict[str, Any]:
    """The model's shape, in Hugging Face's words; quantisation is not in it. Raises ModelSourceError, and OSError."""
    check_family(header)
    family = family_of(header)
    prefix = family.architecture
    config: dict[str, Any] = {
        "model_type": family.model_type,
        "architectures": [family.model_class],
        **{name: count(header, f"{prefix}.{key}") for name, key in _COUNTS.items()},
        "rms_norm_eps": number(header, f"{prefix}.attention.layer_norm_rms_epsilon"),
        "vocab_size": _vocab_size(header),
        "rope_theta": number(header, f"{prefix}.rope.freq_base", 10_000.0),
        "tie_word_embeddings": family.ties or OUTPUT.gguf not in header.tensors,
        **{entry.name: number(header, f"{prefix}.{entry.key}", entry.default) for entry in family.entries},
        **special_ids(header),
    }
    config |= _heads(header, family, config["hidden_size"])
    if any(place.where == "attention_bias" for place in family.places):
        config["attention_bias"] = "blk.0.attn_q.bias" in header.tensors
    if family.width_scaled_layers:
        config["query_pre_attn_scalar"] = _attention_scale(family, config)
    if family.slides:
        config |= _windows(header, prefix, config)
    return config | rope_entries(header, family, config)


def _heads(header: GgufHeader, family: Family, hidden: int) -> dict[str, Any]:
    """The numbers of heads, and the width of one."""
    prefix = family.architecture
    heads = count(header, f"{prefix}.attention.head_count")
    kv_heads = header.metadata.get(f"{prefix}.attention.head_count_kv", heads)
    share = hidden // heads
    head_dim = header.metadata.get(f"{prefix}.attention.key_length", share)
    if not isinstance(kv_heads, int) or kv_heads < 1 or heads % kv_heads:
        raise ModelSourceError(f"{header.path}: layers with {kv_heads} key heads cannot be imported; {INSTEAD}")
    if not isinstance(head_dim, int) or head_dim < 2 or head_dim % 2 or (family.splits_width and head_dim != share):
        raise ModelSourceError(f"{header.path}: heads of the size {head_dim} cannot be imported; {INSTEAD}")
    entries = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim}
    turned = header.metadata.get(f"{prefix}.rope.dimension_count", head_dim)
    if turned == head_dim:
        return {**entries, "partial_rotary_factor": 1.0} if family.turns_part else entries
    if not family.turns_part or not isinstance(turned, int) or not 0 < turned < head_dim or turned % 2:
        raise ModelSourceError(f"{header.path}: rope over a part of each head cannot be imported; {INSTEAD}")
    # Half a value more, because mlx_lm multiplies the share by the size again and cuts what is after the point.
    exact = turned / head_dim
    return {**entries, "partial_rotary_factor": exact if int(head_dim * exact) == turned else exact + 0.5 / head_dim}


def _attention_scale(family: Family, config: dict[str, Any]) -> int:
    """What queries are divided by the root of. It is not in the file: llama.cpp goes by the number of layers, too."""
    is_scaled = config["num_hidden_layers"] == family.width_scaled_layers
    scale: int = config["hidden_size"] // config["num_attention_heads"] if is_scaled else config["head_dim"]
    return scale


def _windows(header: GgufHeader, prefix: str, config: dict[str, Any]) -> dict[str, Any]:
    """How many tokens the layers with a window see, and after how many layers one without a window comes."""
    key = f"{prefix}.attention.sliding_window_pattern"
    layers = config["num_hidden_layers"]
    if f"{prefix}.attention.sliding_window" not in header.metadata:
        return {"sliding_window": config["max_position_embeddings"], "sliding_window_pattern": 1}
    pattern = header.metadata.get(key, _LAYERS_TO_A_FULL_ONE)
    if isinstance(pattern, list):  # for each layer, whether it has a window
        every = pattern.index(0) + 1 if 0 in pattern else 0
        is_even = every > 0 and all(bool(slides) == bool((layer + 1) % every) for layer, slides in enumerate(pattern))
        pattern = every if is_even and len(pattern) == layers else 0
    if isinstance(pattern, bool) or not isinstance(pattern, int) or not 1 <= pattern <= layers:
        raise ModelSourceError(
            f"{header.path}: {key} with {layers} layers does not give one full layer after each so many; {INSTEAD}"
        )
    return {
        "sliding_window": count(header, f"{prefix}.attention.sliding_window"),
        "sliding_window_pattern": pattern,
    }


def _vocab_size(header: GgufHeader) -> int:
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise ModelSourceError(f"{header.path}: no tensor token_embd.weight; give a whole model in one .gguf file")
    return embedding.shape[0]
