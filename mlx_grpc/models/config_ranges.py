"""What the numbers in a model's config.json may be: the table, and how a value is held against it. Pure.

The bounds are far above all published models, and far below what would fill memory or a field of a message.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache

MOST_LAYERS = 4096
MOST_TOKEN_IDS = 1024
MOST_TOKENS = 1 << 24
"""In a vocabulary. The largest published ones have 262,144."""
MOST_CONTEXT_TOKENS = (1 << 31) - 1
"""Llama 4 Scout has 10,485,760."""
MOST_LIST_ITEMS = 65_536
MOST_STRING_CHARACTERS = 1 << 16
MOST_DEPTH = 16
_LARGEST_INTEGER = (1 << 63) - 1


class RangeError(ValueError):
    """A field is not what it may be. One line: the field's path, and what is wrong."""

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        super().__init__(f"{field} {problem}")


@dataclass(frozen=True, slots=True)
class Range:
    """Fields whose names match, and from where to where their numbers go.

    `strict`: nothing but whole numbers, lists of these, and null; other kinds of value are left alone elsewhere.
    `least_inside`: for lists, and for the sections of images and sounds, which say -1 or 0 for what they have not.
    """

    names: str
    least: float
    most: float
    strict: bool = False
    whole: bool = True
    least_inside: float = -1
    most_items: int = MOST_LAYERS

    def problem(self, value: object, inside: bool) -> str:
        """What is wrong with the value; empty for nothing."""
        if isinstance(value, list):
            if len(value) > self.most_items:
                return f"has {len(value)} items, and may have {self.most_items}"
            numbers = (item for item in value if not isinstance(item, (list, dict)))
            return next((problem for item in numbers if (problem := self.problem(item, inside=True))), "")
        if value is None or (not self.strict and not _is_number(value)):
            return ""
        if not _is_number(value):
            return f"is {_shown(value)}, not a number"
        least = self.least_inside if inside else self.least
        if self.whole and not isinstance(value, int):
            return f"is {_shown(value)}, not a whole number" if self.strict else ""
        if not least <= value <= self.most:  # type: ignore[operator]
            return f"is {_shown(value)}, and must be from {_shown(least)} to {_shown(self.most)}"
        return ""


RANGES = (
    Range("num_hidden_layers|num_layers|n_layers?", 1, MOST_LAYERS, strict=True),
    Range("hidden_size|n_embd|d_model|model_dim|dim|embedding_size", 1, 1 << 20, strict=True),
    Range("intermediate_size|ffn_hidden_size|n_inner|moe_intermediate_size", 0, 1 << 24, strict=True),
    Range("vocab_size|padded_vocab_size", 1, MOST_TOKENS, strict=True),
    Range("num_attention_heads|num_key_value_heads|n_heads?|n_kv_heads|num_kv_heads", 1, 1 << 14, strict=True),
    Range("head_dim|kv_channels", 1, 1 << 16, strict=True),
    Range(
        "max_position_embeddings|n_positions|max_sequence_length|max_seq_len|model_max_length|seq_length|n_ctx",
        1, MOST_CONTEXT_TOKENS, strict=True,
    ),
    Range("(.*_)?(eos|bos|pad)_token_id", -1, MOST_TOKENS, strict=True, most_items=MOST_TOKEN_IDS),
    Range(".*_token_(id|index|ids)", -1000, MOST_TOKENS, most_items=MOST_LIST_ITEMS),
    Range(".*experts.*", -1, 1 << 14),
    Range(".*(_eps|_epsilon)", 0, 1, whole=False, least_inside=0),
    Range("(.*_)?rope_theta|rope_base|rotary_emb_base|.*_base_freq", 1e-6, 1e15, whole=False, least_inside=1e-6),
    Range(
        "(num|n)_.*|.*_(layers?|heads?|groups?|blocks?|experts?|loops?)",
        -1000, MOST_TOKENS, most_items=MOST_LIST_ITEMS,
    ),
    Range(
        ".*(size|dim|dims|rank|width|kernel|channels|topk|top_k|state|period|interval|step|freq|window|stride|expand)",
        -1000, MOST_CONTEXT_TOKENS, most_items=MOST_LIST_ITEMS,
    ),
)  # fmt: skip
"""The first row that matches a field's name counts."""


@lru_cache(maxsize=4096)
def range_of(name: str) -> Range | None:
    """The row for a field of this name."""
    return next((row for row in RANGES if re.fullmatch(row.names, name)), None) if len(name) < 100 else None


def value_problem(name: str, value: object, inside: bool) -> str:
    """What is wrong with one field, whose name is the last of its path; empty for nothing. Not what it contains.

    `inside`: in another section than the model's own or that of its text part.
    """
    row = range_of(name)
    if row is not None and (problem := row.problem(value, inside)):
        return problem
    if isinstance(value, (list, dict)) and len(value) > MOST_LIST_ITEMS:
        return f"has {len(value)} items, and may have {MOST_LIST_ITEMS}"
    if isinstance(value, str) and len(value) > MOST_STRING_CHARACTERS:
        return f"has {len(value)} characters, and may have {MOST_STRING_CHARACTERS}"
    if isinstance(value, float) and math.isnan(value):
        return "is NaN, not a number"
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        return f"is {_shown(value)}, which has more than 64 bits"
    return ""


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """Short, however long the value."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 64:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, dict):
        return "an object"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
