"""Writes small GGUF files as llama.cpp's converter would, for the tests of the import."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGMLQuantizationType

from tests.helpers.gguf_blocks import Blocks, Floats

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, FEED_FORWARD = 64, 2, 4, 2, 16, 96
SPECIAL = ["<|end|>", "<|start|>"]

_ALIGNMENT = 32


def byte_alphabet() -> list[str]:
    """The 256 characters that byte-level BPE writes bytes as (GPT-2's table), in the order of the bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def small_metadata(**changes: Any) -> dict[str, Any]:
    """The metadata of a two-layer Llama; a change to None takes the key out (`__` in a key stands for a dot)."""
    tokens = [*SPECIAL, *byte_alphabet(), "he", "ll", "llo", "hello", "12"]
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": LAYERS,
        "llama.context_length": 128,
        "llama.embedding_length": HIDDEN,
        "llama.feed_forward_length": FEED_FORWARD,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10_000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, *[1] * (len(tokens) - 2)],
        "tokenizer.ggml.merges": ["h e", "l l", "ll o", "he llo", "1 2"],
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    }
    for key, value in changes.items():
        metadata[key.replace("__", ".")] = value
    return {key: value for key, value in metadata.items() if value is not None}


def small_weights(vocab_size: int, seed: int = 0) -> dict[str, Floats]:
    """Random weights by MLX's names, in MLX's order of rows. All are small multiples of 1/64: exact in every type."""
    random = np.random.default_rng(seed)
    queries, keys = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocab_size, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for layer in range(LAYERS):
        of_layer = {
            "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,),
            "self_attn.q_proj": (queries, HIDDEN), "self_attn.k_proj": (keys, HIDDEN),
            "self_attn.v_proj": (keys, HIDDEN), "self_attn.o_proj": (HIDDEN, queries),
            "mlp.gate_proj": (FEED_FORWARD, HIDDEN), "mlp.up_proj": (FEED_FORWARD, HIDDEN),
            "mlp.down_proj": (HIDDEN, FEED_FORWARD),
        }  # fmt: skip
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in of_layer.items()}
    return {name: (random.integers(-8, 8, shape) / 64).astype(np.float32) for name, shape in shapes.items()}


def gguf_tensors(weights: Mapping[str, Floats]) -> dict[str, Floats]:
    """The same weights by GGUF's names, the rows of q and k in llama.cpp's order."""
    return {_gguf_name(name): _permuted(name, array) for name, array in weights.items()}


def write_gguf(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Floats | Blocks],
    types: Mapping[str, str] | None = None,
) -> Path:
    """Writes a version 3 file. `types` names the type of the tensors that are neither F32 nor blocks already."""
    front = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for key, value in metadata.items():
        front += _string(key) + _tagged(value)
    data = bytearray()
    for name, array in tensors.items():
        kind = array.type_name if isinstance(array, Blocks) else (types or {}).get(name, "F32")
        front += _string(name) + struct.pack("<I", len(array.shape))
        front += struct.pack(f"<{len(array.shape)}Q", *reversed(array.shape))
        front += struct.pack("<IQ", GGMLQuantizationType[kind], len(data))
        data += _padded(array.rows.tobytes() if isinstance(array, Blocks) else _packed(array, kind))
    path.write_bytes(_padded(bytes(front)) + data)
    return path


def small_gguf(path: Path, types: Mapping[str, str] | None = None, **changes: Any) -> tuple[Path, dict[str, Floats]]:
    """A whole small model: its file, and its weights as MLX should have them."""
    metadata = small_metadata(**changes)
    weights = small_weights(len(metadata["tokenizer.ggml.tokens"]))
    return write_gguf(path, metadata, gguf_tensors(weights), types), weights


def _permuted(name: str, array: Floats) -> Floats:
    heads = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(name.split(".")[-2])
    if heads is None:
        return array
    halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)


def _gguf_name(name: str) -> str:
    words = {
        "model.layers": "blk", "model.embed_tokens": "token_embd", "model.norm": "output_norm",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    for theirs, ours in words.items():
        name = name.replace(theirs, ours)
    return name


def _packed(array: Floats, kind: str) -> bytes:
    if kind == "F32":
        return array.astype("<f4").tobytes()
    scale = np.float16(1 / 64)
    whole = np.rint(array.reshape(-1, 32) * 64).astype(np.int8)
    if kind == "Q8_0":
        return b"".join(scale.tobytes() + block.tobytes() for block in whole)
    nibbles = (whole + 8).astype(np.uint8)
    return b"".join(scale.tobytes() + (row[:16] | row[16:] << 4).tobytes() for row in nibbles)


def _tagged(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<Ii", 5, value) if value < 0 else struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    items = [_tagged(item) for item in value]
    return struct.pack("<I", 9) + items[0][:4] + struct.pack("<Q", len(items)) + b"".join(item[4:] for item in items)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGNMENT)
