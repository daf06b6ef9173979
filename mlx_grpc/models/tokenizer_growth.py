"""How much longer a tokenizer's normalizer or decoder may make a text, from its part of tokenizer.json. Pure.

Forty replacements of a letter by two, one after another, make a terabyte of it, in the library, which then ends the
process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_GROWTH = 128.0
"""A space is often replaced by a mark of three bytes, after a mark that is put before: twelve times."""
MOST_STEPS = 256


def growth_problem(part: Mapping[str, Any] | None) -> str:
    """What is wrong with a normalizer or decoder; empty for nothing, and for none."""
    steps = _steps(part)
    if len(steps) > MOST_STEPS:
        return f"it has {len(steps)} steps of normalizing or decoding, and may have {MOST_STEPS}"
    growth = 1.0
    for step in steps:
        growth *= _growth(step)
        if growth > MOST_GROWTH:
            return f"it makes a text more than {MOST_GROWTH:g} times as long"
    return ""


def _steps(part: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """All that are not sequences themselves."""
    steps: list[Mapping[str, Any]] = []
    waiting = [part] if part else []
    while waiting:
        one = waiting.pop()
        inner = one.get("normalizers", one.get("decoders")) if one.get("type") == "Sequence" else None
        if inner is None:
            steps.append(one)
        else:
            waiting += inner
    return steps


def _growth(step: Mapping[str, Any]) -> float:
    """At most, in bytes; only what a file can choose. A replacement may also make a text shorter, which is not counted
    on."""
    if step.get("type") == "Prepend":
        return 1.0 + _bytes(step.get("prepend"))
    if step.get("type") != "Replace":
        return 1.0
    content, pattern = _bytes(step.get("content")), step.get("pattern")
    text = pattern.get("String") if isinstance(pattern, Mapping) else None
    # A regular expression may match between any two characters.
    return max(1.0, content / _bytes(text)) if text else 1.0 + content


def _bytes(text: Any) -> int:
    return len(str(text or "").encode(errors="replace"))
