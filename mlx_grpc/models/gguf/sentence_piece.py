"""The part of tokenizer.json that a SentencePiece vocabulary gives: merges follow from the pieces and their scores."""

from __future__ import annotations

from typing import Any

from mlx_grpc.models.gguf.families import family_of
from mlx_grpc.models.gguf.header import GgufHeader
from mlx_grpc.models.gguf.merges import derived_merges
from mlx_grpc.models.gguf.special_ids import USER_DEFINED

_SPACE = "\u2581"
_FIRST = 1.0
"""Better than the score of any piece that SentencePiece has learned."""


def with_space_pieces(tokens: list[str], types: list[int]) -> list[str]:
    """Runs of spaces as SentencePiece writes them."""
    return [
        _SPACE * len(token) if kind == USER_DEFINED and not token.strip(" ") else token
        for token, kind in zip(tokens, types, strict=True)
    ]


def sentence_piece(header: GgufHeader, vocab: dict[str, int], types: list[int]) -> dict[str, Any]:
    """normalizer, pre_tokenizer, model and decoder. types: of the tokens, in the order of their ids. Raises
    ModelSourceError."""
    scores: list[float] = header.require("tokenizer.ggml.scores")
    if family_of(header).spaces_are_pieces:  # llama.cpp puts them last
        scores = [_FIRST if kind == USER_DEFINED else score for score, kind in zip(scores, types, strict=False)]
    unknown = header.metadata.get("tokenizer.ggml.unknown_token_id", 0)
    add_space = header.metadata.get("tokenizer.ggml.add_space_prefix", True)
    prepend = [{"type": "Prepend", "prepend": _SPACE}] if add_space else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if add_space else []
    replace_back = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": next((token for token, index in vocab.items() if index == unknown), None),
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": vocab,
        "merges": derived_merges(header.path, vocab, scores),
    }
    return {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [*prepend, {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}],
        },
        "pre_tokenizer": None,
        "model": model,
        "decoder": {
            "type": "Sequence",
            "decoders": [replace_back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip],
        },
    }
