"""From a GGUF file's vocabulary to the tokenizer.json and tokenizer_config.json of Hugging Face's tokenizers.

Two kinds: byte-level BPE (`gpt2`), where the file names how text is split before the merges, and
SentencePiece (`llama`), where merges are not in the file and follow from the vocabulary and its scores.
"""

from __future__ import annotations

from typing import Any

from mlx_grpc.models.gguf.families import family_of
from mlx_grpc.models.gguf.header import GgufHeader
from mlx_grpc.models.gguf.merges import check_tokens
from mlx_grpc.models.gguf.pretokenizer import NFC, PreTokenizer, known_names, pre_tokenizer
from mlx_grpc.models.gguf.sentence_piece import sentence_piece, with_space_pieces
from mlx_grpc.models.gguf.special_ids import CONTROL, USER_DEFINED, special_ids
from mlx_grpc.models.sources import ModelSourceError

_NORMAL, _UNKNOWN = 1, 2
# Where a family's marks swallow the white space after them, these do not. The file has nothing about it: llama.cpp goes
# by the model's name.
_LEAVE_SPACE = frozenset({"<unk>", "<s>", "<|endoftext|>"})
Json = dict[str, Any]


def tokenizer_json(header: GgufHeader) -> Json:
    """The tokenizer. Raises ModelSourceError for an unknown kind: a wrong split would be silent nonsense."""
    kind = header.require("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise ModelSourceError(f"{header.path}: tokenizer {kind!r} cannot be imported; use an MLX version instead")
    tokens: list[str] = header.require("tokenizer.ggml.tokens")
    check_tokens(header.path, tokens)
    types = _token_types(header, len(tokens))
    is_byte_level, family = kind == "gpt2", family_of(header)
    if family.spaces_are_pieces and not is_byte_level:
        tokens = with_space_pieces(tokens, types)
    vocab = {token: index for index, token in enumerate(tokens)}
    parts = _byte_level(header, vocab) if is_byte_level else sentence_piece(header, vocab, types)
    takes_space = family.marks_take_space and not is_byte_level
    begins = _splitter(header).begins if is_byte_level else True
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(tokens, types, takes_space=takes_space),
        "post_processor": _post_processor(header, tokens, begins=begins),
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
    splitter = _splitter(header)
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


def _splitter(header: GgufHeader) -> PreTokenizer:
    """The file must name it: older files do not, and what llama.cpp guesses for these is worse text."""
    name = header.require("tokenizer.ggml.pre")
    splitter = pre_tokenizer(name)
    if splitter is None:
        raise ModelSourceError(
            f"{header.path}: pre-tokenizer {str(name)[:100]!r} cannot be imported, only {known_names()}; use an MLX "
            "version instead"
        )
    return splitter


def _token_types(header: GgufHeader, count: int) -> list[int]:
    types: list[int] = header.metadata.get("tokenizer.ggml.token_type", [_NORMAL] * count)
    if len(types) != count:
        raise ModelSourceError(f"{header.path}: {count} tokens but {len(types)} token types; download it again")
    return types


def _added_tokens(tokens: list[str], types: list[int], *, takes_space: bool) -> list[Json]:
    flags = {"single_word": False, "lstrip": False, "normalized": False}
    return [
        {
            "id": index,
            "content": token,
            "special": types[index] != USER_DEFINED,
            "rstrip": takes_space and token not in _LEAVE_SPACE,
            **flags,
        }
        for index, token in enumerate(tokens)
        if types[index] in (_UNKNOWN, CONTROL, USER_DEFINED)
    ]


def _post_processor(header: GgufHeader, tokens: list[str], *, begins: bool) -> Json | None:
    """Puts the begin token first where the file wants it, or where llama.cpp does and the file is silent."""
    bos = special_ids(header).get("bos_token_id")
    if bos is None or not header.metadata.get("tokenizer.ggml.add_bos_token", begins):
        return None
    begin = {"SpecialToken": {"id": tokens[bos], "type_id": 0}}
    first, second = ({"Sequence": {"id": side, "type_id": 0}} for side in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [begin, first],
        "pair": [begin, first, second],
        "special_tokens": {tokens[bos]: {"id": tokens[bos], "ids": [bos], "tokens": [tokens[bos]]}},
    }
