"""From a GGUF file's vocabulary to the tokenizer.json and tokenizer_config.json of Hugging Face's tokenizers.

Two kinds: byte-level BPE (`gpt2`), where the file names how text is split before the merges, and
SentencePiece (`llama`), where merges are not in the file and follow from the vocabulary and its scores.
"""

from __future__ import annotations

from typing import Any

from mlx_grpc.models.gguf.header import GgufHeader
from mlx_grpc.models.gguf.merges import check_tokens, derived_merges
from mlx_grpc.models.gguf.pretokenizer import NFC, pre_tokenizer
from mlx_grpc.models.gguf.special_ids import CONTROL, USER_DEFINED, special_ids
from mlx_grpc.models.sources import ModelSourceError

_NORMAL, _UNKNOWN = 1, 2
_SPACE = "\u2581"
Json = dict[str, Any]


def tokenizer_json(header: GgufHeader) -> Json:
    """The tokenizer. Raises ModelSourceError for an unknown kind: a wrong split would be silent nonsense."""
    kind = header.require("tokenizer.ggml.model")
    makers = {"gpt2": _byte_level, "llama": _sentence_piece}
    if kind not in makers:
        raise ModelSourceError(f"{header.path}: tokenizer {kind!r} cannot be imported; use an MLX version instead")
    tokens: list[str] = header.require("tokenizer.ggml.tokens")
    check_tokens(header.path, tokens)
    parts = makers[kind](header, {token: index for index, token in enumerate(tokens)})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(tokens, _token_types(header, len(tokens))),
        "post_processor": _post_processor(header, tokens, byte_level=kind == "gpt2"),
        **parts,
    }


def tokenizer_config(header: GgufHeader, context_length: int) -> Json:
    """tokenizer_config.json: the special tokens by role, and the chat template where the file has one."""
    tokens = header.require("tokenizer.ggml.tokens")
    config: Json = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
    }
    for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        index = header.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(index, int) and 0 <= index < len(tokens):
            config[f"{role}_token"] = tokens[index]
    if template := header.metadata.get("tokenizer.chat_template"):
        config["chat_template"] = template
    return config


def _byte_level(header: GgufHeader, vocab: dict[str, int]) -> Json:
    name = header.metadata.get("tokenizer.ggml.pre", "default")
    splitter = pre_tokenizer(name)
    if splitter is None:
        raise ModelSourceError(f"{header.path}: pre-tokenizer {name!r} cannot be imported; use an MLX version instead")
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": splitter.ignore_merges,
        "vocab": vocab,
        "merges": [merge.split(" ", 1) for merge in header.require("tokenizer.ggml.merges")],
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "normalizer": NFC if splitter.nfc else None,
        "pre_tokenizer": splitter.json,
        "model": model,
        "decoder": byte_level,
    }


def _sentence_piece(header: GgufHeader, vocab: dict[str, int]) -> Json:
    scores: list[float] = header.require("tokenizer.ggml.scores")
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


def _token_types(header: GgufHeader, count: int) -> list[int]:
    types: list[int] = header.metadata.get("tokenizer.ggml.token_type", [_NORMAL] * count)
    if len(types) != count:
        raise ModelSourceError(f"{header.path}: {count} tokens but {len(types)} token types; download it again")
    return types


def _added_tokens(tokens: list[str], types: list[int]) -> list[Json]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": index, "content": token, "special": types[index] != USER_DEFINED, **flags}
        for index, token in enumerate(tokens)
        if types[index] in (_UNKNOWN, CONTROL, USER_DEFINED)
    ]


def _post_processor(header: GgufHeader, tokens: list[str], *, byte_level: bool) -> Json | None:
    """Puts the begin token first where the file wants it, or where llama.cpp does and the file is silent."""
    name = header.metadata.get("tokenizer.ggml.pre", "default")
    wanted = header.metadata.get("tokenizer.ggml.add_bos_token", not byte_level or name == "llama-bpe")
    bos = special_ids(header).get("bos_token_id")
    if not wanted or bos is None:
        return None
    begin = {"SpecialToken": {"id": tokens[bos], "type_id": 0}}
    first, second = ({"Sequence": {"id": side, "type_id": 0}} for side in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [begin, first],
        "pair": [begin, first, second],
        "special_tokens": {tokens[bos]: {"id": tokens[bos], "ids": [bos], "tokens": [tokens[bos]]}},
    }
