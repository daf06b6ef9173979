"""From a GGUF file's metadata to the config.json and generation_config.json of an MLX Llama."""

from __future__ import annotations

from typing import Any

from mlx_grpc.models.gguf.header import GgufHeader
from mlx_grpc.models.gguf.rope import llama3_rope_scaling, rope_factors
from mlx_grpc.models.gguf.special_ids import special_ids
from mlx_grpc.models.sources import ModelSourceError

_INSTEAD = "use an MLX version of the model instead"


def check_family(header: GgufHeader) -> None:
    """Raises ModelSourceError for all that is no plain Llama."""
    architecture = header.require("general.architecture")
    if architecture != "llama":
        raise ModelSourceError(
            f"{header.path}: architecture {architecture!r}; only the Llama family can be imported, {_INSTEAD}"
        )
    metadata = header.metadata
    if metadata.get("llama.expert_count"):
        raise ModelSourceError(f"{header.path}: a mixture of experts cannot be imported; {_INSTEAD}")
    scaling = metadata.get("llama.rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise ModelSourceError(f"{header.path}: rope scaling {scaling!r} cannot be imported; {_INSTEAD}")


def llama_config(header: GgufHeader) -> dict[str, Any]:
    """The model's shape, in the words of Hugging Face's Llama; quantisation is not in it."""
    check_family(header)
    metadata = header.metadata
    heads, kv_heads, head_dim = _heads(header)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": _count(header, "llama.embedding_length"),
        "num_hidden_layers": _count(header, "llama.block_count"),
        "intermediate_size": _count(header, "llama.feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "rms_norm_eps": _short_float(header.require("llama.attention.layer_norm_rms_epsilon")),
        "vocab_size": _vocab_size(header),
        "max_position_embeddings": _count(header, "llama.context_length"),
        "rope_theta": _short_float(metadata.get("llama.rope.freq_base", 10_000.0)),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "attention_bias": "blk.0.attn_q.bias" in header.tensors,
        **special_ids(header),
    }
    if (factors := rope_factors(header)) is not None:
        config["rope_scaling"] = llama3_rope_scaling(factors, head_dim, config["rope_theta"])
        if config["rope_scaling"] is None:
            raise ModelSourceError(f"{header.path}: an unknown kind of rope scaling; {_INSTEAD}")
    elif metadata.get("llama.rope.scaling.type") == "linear":
        config["rope_scaling"] = {
            "type": "linear",
            "factor": _short_float(metadata.get("llama.rope.scaling.factor", 1.0)),
        }
    return config


def _heads(header: GgufHeader) -> tuple[int, int, int]:
    """Query heads, key heads, and the width of one head."""
    heads = _count(header, "llama.attention.head_count")
    kv_heads = header.metadata.get("llama.attention.head_count_kv", heads)
    head_dim = header.metadata.get("llama.attention.key_length", _count(header, "llama.embedding_length") // heads)
    if not isinstance(kv_heads, int) or kv_heads < 1 or heads % kv_heads:
        raise ModelSourceError(f"{header.path}: layers with {kv_heads} key heads cannot be imported; {_INSTEAD}")
    if not isinstance(head_dim, int) or head_dim < 2 or head_dim % 2:
        raise ModelSourceError(f"{header.path}: heads of the size {head_dim} cannot be imported; {_INSTEAD}")
    if header.metadata.get("llama.rope.dimension_count", head_dim) != head_dim:
        raise ModelSourceError(f"{header.path}: rope over a part of each head cannot be imported; {_INSTEAD}")
    return heads, kv_heads, head_dim


def _count(header: GgufHeader, key: str) -> int:
    value = header.require(key)
    if not isinstance(value, int) or not 0 < value < 1 << 32:
        raise ModelSourceError(f"{header.path}: {key} is {value!r}, not a positive number; convert the model again")
    return value


def _vocab_size(header: GgufHeader) -> int:
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise ModelSourceError(f"{header.path}: no tensor token_embd.weight; give a whole model in one .gguf file")
    return embedding.shape[0]


def _short_float(value: Any) -> float:
    """A float32 as the shortest decimal that is the same float32: 1e-05, not 9.99999974e-06."""
    return float(f"{float(value):.7g}")
