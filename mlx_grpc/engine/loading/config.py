"""What config.json says that the engine must know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_grpc.engine.loading.text_part import SECTIONS

CONTEXT_KEYS = (
    "max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "model_max_length",
    "seq_length", "n_ctx",
)  # fmt: skip
DEFAULT_CONTEXT_LENGTH = 4096
DEFAULT_ATTENTION_HEADS = 32
BLOCK_KEYS = ("index_block_size", "blocksparse_block_size")


def context_length(config: Mapping[str, Any]) -> tuple[int, list[str]]:
    for section in _sections(config):
        for key in CONTEXT_KEYS:
            if isinstance(length := section.get(key), int) and length > 0:
                return length, []
    return DEFAULT_CONTEXT_LENGTH, [f"config.json names no context length: {DEFAULT_CONTEXT_LENGTH} is taken"]


def eos_ids(config: Mapping[str, Any]) -> list[int]:
    for section in _sections(config):
        ids = section.get("eos_token_id")
        if ids is not None:
            return [ids] if isinstance(ids, int) else [int(token) for token in ids]
    return []


def attention_heads(config: Mapping[str, Any]) -> int:
    found = [section.get("num_attention_heads") for section in _sections(config)]
    return max((heads for heads in found if isinstance(heads, int)), default=DEFAULT_ATTENTION_HEADS)


def chooses_blocks(config: Mapping[str, Any]) -> bool:
    """Whether attention chooses among blocks of keys, counted from the first place of the cache: padding would move
    them. Rows that are short enough to test have too few blocks for a choice."""
    return any(key in section for section in _sections(config) for key in BLOCK_KEYS)


def _sections(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The config, and the part for text that models with eyes or ears nest in it."""
    return [config, *(section for name in SECTIONS if isinstance(section := config.get(name), Mapping))]
