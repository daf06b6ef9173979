"""How much longer a tokenizer may make a text."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_grpc.models.tokenizer_growth import growth_problem


def replaced(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(*steps: dict[str, Any], name: str = "normalizers") -> dict[str, Any]:
    return {"type": "Sequence", name: list(steps)}


SPACE = {"String": " "}
LLAMA = sequence({"type": "Prepend", "prepend": "\u2581"}, replaced(SPACE, "\u2581"))
T5 = sequence(
    replaced({"String": "``"}, '"'), replaced({"String": "''"}, '"'), {"type": "NFKD"}, {"type": "StripAccents"},
    {"type": "Precompiled", "precompiled_charsmap": "x"}, replaced({"Regex": " {2,}"}, " "),
)  # fmt: skip
BACK = sequence(replaced({"String": "\u2581"}, " "), {"type": "ByteFallback"}, {"type": "Fuse"}, name="decoders")


@pytest.mark.parametrize("part", [None, {}, {"type": "NFC"}, LLAMA, T5, BACK, replaced(SPACE, "\u2581")])
def test_published_ones_pass(part: dict[str, Any] | None) -> None:
    """SentencePiece, T5, and decoders that put spaces back."""
    assert growth_problem(part) == ""


@pytest.mark.parametrize("name", ["normalizers", "decoders"])
@pytest.mark.parametrize("step", [replaced({"String": "q"}, "qq"), replaced({"Regex": "q"}, "qq")])
def test_growth_multiplies(step: dict[str, Any], name: str) -> None:
    """In sequences of sequences, too."""
    assert "times as long" in growth_problem(sequence(*[sequence(step, name=name)] * 40, name=name))


def test_one_long_replacement_is_enough() -> None:
    """Of a character, or before each piece."""
    for step in (replaced({"String": "a"}, "b" * 1000), {"type": "Prepend", "prepend": "b" * 1000}):
        assert "times as long" in growth_problem(step)


def test_steps_are_counted() -> None:
    """Each takes its time for every text."""
    assert "steps" in growth_problem(sequence(*[{"type": "NFC"}] * 1000))
