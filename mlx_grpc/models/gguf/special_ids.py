"""Which tokens begin a text and end a turn, by a GGUF file's metadata and by the names that models give them."""

from __future__ import annotations

from typing import Any

from mlx_grpc.models.gguf.header import GgufHeader

CONTROL, USER_DEFINED = 3, 4
"""ggml's kinds of token that the tokenizer finds in text as a whole."""

# Metadata often name the end of a document alone, and then a chat's turns never end. These names mean the same in all
# models that have them. Left out are marks that stand inside of a turn: roles, tools, padding, and those of code
# infilling but its end.
_ENDS = frozenset(
    {
        "<|im_end|>",  # ChatML: Qwen, SmolLM, Yi, Hermes
        "<|eot_id|>", "<|eom_id|>", "<|eot|>",  # Llama: end of turn, end of message (a tool is to answer next)
        "<end_of_turn>",  # Gemma
        "<|end|>",  # Phi. In Harmony a turn goes on after it, but Harmony's models cannot be imported.
        "<|end_of_turn|>",  # OpenChat, Starling
        "<|endofturn|>", "[|endofturn|]",  # HyperCLOVA X, EXAONE
        "<|END_OF_TURN_TOKEN|>",  # Command R
        "<|EOT|>", "<EOT>", "\u2581<EOT>",  # DeepSeek Coder, Code Llama
        # The end of a document: nothing that answers a prompt can follow it.
        "<|end_of_text|>", "<|endoftext|>", "<\uff5cend\u2581of\u2581sentence\uff5c>",
    }
)  # fmt: skip
# Only as control tokens: a user-defined one may be markup, such as that of crossed-out text.
_CONTROL_ENDS = _ENDS | {"</s>", "<eos>"}


def special_ids(header: GgufHeader) -> dict[str, Any]:
    """bos_token_id and eos_token_id, as far as the file has them; several ends make a list, the metadata's first."""
    found: dict[str, Any] = {}
    if (bos := _named(header, "bos")) is not None:
        found["bos_token_id"] = bos
    named = [end for kind in ("eos", "eot", "eom") if (end := _named(header, kind)) is not None]
    ends = list(dict.fromkeys([*named, *_ends_by_name(header)]))
    if ends:
        found["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    return found


def _named(header: GgufHeader, kind: str) -> int | None:
    """The id that the metadata give; converters write -1 or another id past the vocabulary for none."""
    index = header.metadata.get(f"tokenizer.ggml.{kind}_token_id")
    return index if isinstance(index, int) and 0 <= index < len(_listed(header, "tokens")) else None


def _ends_by_name(header: GgufHeader) -> list[int]:
    pairs = enumerate(zip(_listed(header, "tokens"), _listed(header, "token_type"), strict=False))
    return [
        index
        for index, (token, kind) in pairs
        if (kind == CONTROL and token in _CONTROL_ENDS) or (kind == USER_DEFINED and token in _ENDS)
    ]


def _listed(header: GgufHeader, key: str) -> list[Any]:
    value = header.metadata.get(f"tokenizer.ggml.{key}")
    return value if isinstance(value, list) else []
