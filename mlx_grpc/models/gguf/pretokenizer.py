"""How byte-level tokenizers split text before they merge, by GGUF's names for it (`tokenizer.ggml.pre`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NFC = {"type": "NFC"}
_LETTERS_AND_REST = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{DIGITS}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """`json` is for tokenizer.json; with `ignore_merges` a word that is a token stays one."""

    json: dict[str, Any]
    ignore_merges: bool = False
    nfc: bool = False


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _after_digits() -> dict[str, Any]:
    return {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, _byte_level(True)],
    }


def _after_split(digits: str) -> dict[str, Any]:
    pattern = f"{_CONTRACTIONS}|{_LETTERS_AND_REST.replace('{DIGITS}', digits)}"
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _byte_level(False)]}


_KNOWN = {
    "gpt-2": PreTokenizer(_byte_level(True)),
    "smollm": PreTokenizer(_after_digits()),
    "llama-bpe": PreTokenizer(_after_split("{1,3}"), ignore_merges=True),
    "qwen2": PreTokenizer(_after_split(""), nfc=True),
}


def pre_tokenizer(name: str) -> PreTokenizer | None:
    """The splitter of that name, or None when it is not known here."""
    return _KNOWN.get(name)
