"""Tiny Llamas in GGUF files whose matrices have types of one's choice, and the same weights as MLX should have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.gguf import small_metadata, write_gguf
from tests.helpers.gguf_blocks import Blocks, Floats, random_blocks

HIDDEN, LAYERS, HEADS, KV_HEADS, FEED_FORWARD = 256, 2, 4, 2, 512  # rows of whole blocks of every type
_KEYS = KV_HEADS * HIDDEN // HEADS
_LAYER = {
    "attn_q": ("self_attn.q_proj", HIDDEN, HIDDEN), "attn_k": ("self_attn.k_proj", _KEYS, HIDDEN),
    "attn_v": ("self_attn.v_proj", _KEYS, HIDDEN), "attn_output": ("self_attn.o_proj", HIDDEN, HIDDEN),
    "ffn_gate": ("mlp.gate_proj", FEED_FORWARD, HIDDEN), "ffn_up": ("mlp.up_proj", FEED_FORWARD, HIDDEN),
    "ffn_down": ("mlp.down_proj", HIDDEN, FEED_FORWARD),
}  # fmt: skip


@dataclass(frozen=True)
class TypedModel:
    """A file, and by MLX's names the values that the package `gguf` gives and the types."""

    path: Path
    weights: dict[str, Floats]
    types: dict[str, str]


def matrices() -> dict[str, tuple[str, int, int]]:
    """GGUF's name without `.weight`: MLX's name, outputs, inputs."""
    vocab = len(small_metadata()["tokenizer.ggml.tokens"])
    found = {"token_embd": ("model.embed_tokens", vocab, HIDDEN), "output": ("lm_head", vocab, HIDDEN)}
    for layer in range(LAYERS):
        found |= {
            f"blk.{layer}.{name}": (f"model.layers.{layer}.{mlx_name}", outputs, inputs)
            for name, (mlx_name, outputs, inputs) in _LAYER.items()
        }
    return found


def typed_model(path: Path, types: Mapping[str, str], **changes: Any) -> TypedModel:
    """Writes a Llama of random weights. `types` has one for each of `matrices()`."""
    sizes = {"llama__embedding_length": HIDDEN, "llama__feed_forward_length": FEED_FORWARD}
    metadata = small_metadata(**(sizes | changes))
    tensors: dict[str, Floats | Blocks] = {}
    weights: dict[str, Floats] = {}
    for seed, (name, (mlx_name, outputs, inputs)) in enumerate(matrices().items()):
        blocks = random_blocks(types[name], (outputs, inputs), seed, size=inputs**-0.5)
        tensors[f"{name}.weight"] = blocks
        weights[f"{mlx_name}.weight"] = blocks.weights[_places(name, outputs)]
    exact = (np.arange(HIDDEN) % 97 / 64 + 0.5).astype(np.float32)  # in half types, too
    for name, mlx_name in _norms().items():
        tensors[f"{name}.weight"] = weights[f"{mlx_name}.weight"] = exact
    by_mlx_name = {mlx_name: types[name] for name, (mlx_name, _, _) in matrices().items()}
    return TypedModel(write_gguf(path, metadata, tensors), weights, by_mlx_name)


def _norms() -> dict[str, str]:
    found = {"output_norm": "model.norm"}
    for layer in range(LAYERS):
        found[f"blk.{layer}.attn_norm"] = f"model.layers.{layer}.input_layernorm"
        found[f"blk.{layer}.ffn_norm"] = f"model.layers.{layer}.post_attention_layernorm"
    return found


def _places(name: str, outputs: int) -> list[int]:
    """Where in the file each row of MLX's order is: llama.cpp writes the two halves of a head in turns."""
    heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(name.rpartition(".")[2])
    if heads is None:
        return list(range(outputs))
    size = outputs // heads
    return [head * size + 2 * (row % (size // 2)) + row // (size // 2) for head in range(heads) for row in range(size)]
