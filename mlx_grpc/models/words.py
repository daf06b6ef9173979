"""Texts about other people's files, made fit for one line."""

from __future__ import annotations

MOST_CHARACTERS = 800
"""Of a message. Names in a file may have megabytes, and what is wrong with a model is told to all who list models."""


def one_line(text: str, most_characters: int = MOST_CHARACTERS) -> str:
    """Without line breaks, cut to so many characters, and without halves of surrogate pairs, which no wire carries."""
    words = " ".join(text[: 4 * most_characters].split())
    words = words.encode("utf-8", "backslashreplace").decode()
    return words if len(words) <= most_characters else f"{words[: most_characters - 3]}..."
