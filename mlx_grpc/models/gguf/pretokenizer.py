"""How byte-level tokenizers split text before they merge, by GGUF's names for it (`tokenizer.ggml.pre`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NFC = {"type": "NFC"}
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
# A word in capitals is one, and so is a word that begins with one; `{END}` is what may follow each.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LETTERS_BY_CASE = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{{END}}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{{END}}"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_DEFAULT = (
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
)
"""llama.cpp's own: one after another, each splits what the one before left."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """`json` is for tokenizer.json; with `ignore_merges` a word that is a token stays one. begins: a text starts with
    the begin token where the file does not say."""

    json: Json
    ignore_merges: bool = False
    nfc: bool = False
    begins: bool = False


def _byte_level(use_regex: bool) -> Json:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _after_digits() -> Json:
    return {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, _byte_level(True)],
    }


def _after_splits(*patterns: str) -> Json:
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in patterns
    ]
    return {"type": "Sequence", "pretokenizers": [*splits, _byte_level(False)]}


def _words(letters: str, digits: str, after_marks: str = r"[\r\n]*") -> Json:
    return _after_splits(rf"{letters}|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+{after_marks}|{_SPACES}")


_CL100K = _words(f"{_CONTRACTIONS}|{_LETTERS}", "{1,3}")
_QWEN2 = _words(f"{_CONTRACTIONS}|{_LETTERS}", "")
_O200K = _words(_LETTERS_BY_CASE.replace("{END}", f"{_CONTRACTIONS}?"), "{1,3}", r"[\r\n/]*")
_TEKKEN = _words(_LETTERS_BY_CASE.replace("{END}", ""), "", r"[\r\n/]*")
_LLAMA3 = PreTokenizer(_CL100K, ignore_merges=True, begins=True)

_KNOWN = {
    "default": PreTokenizer(_after_splits(*_DEFAULT)),
    "gpt-2": PreTokenizer(_byte_level(True)),
    "smollm": PreTokenizer(_after_digits()),
    "llama-bpe": _LLAMA3, "llama3": _LLAMA3, "llama-v3": _LLAMA3,
    "qwen2": PreTokenizer(_QWEN2, nfc=True),
    "deepseek-r1-qwen": PreTokenizer(_QWEN2),
    "tekken": PreTokenizer(_TEKKEN, ignore_merges=True, begins=True),  # Mistral's
    "dbrx": PreTokenizer(_CL100K),  # Phi-4
    "gpt-4o": PreTokenizer(_O200K),  # Phi-4-mini
}  # fmt: skip


def pre_tokenizer(name: str) -> PreTokenizer | None:
    """The splitter of that name, or None when it is not known here."""
    return _KNOWN.get(name) if isinstance(name, str) else None


def known_names() -> str:
    """All that are known, for messages."""
    return ", ".join(_KNOWN)
